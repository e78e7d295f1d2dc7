"""Use a tree of certificates with the original's own code, as its server does.

certs.py enrol DIR CA NAME...   give the clients certificates, store their part in client/
certs.py delete DIR CA NAME     take one away
certs.py serve DIR CA           take TLS connections on a free port, print who came
"""
import asyncio, logging, os, shutil, socket, ssl, sys
from aioconnectors.ssl_helper import SSL_helper

what, directory, ca, names = sys.argv[1], sys.argv[2], sys.argv[3] == '1', sys.argv[4:]
logging.basicConfig(level=logging.ERROR)
helper = SSL_helper(logging.getLogger('certs'), True, certificates_directory_path=directory,
                    max_certs=100, server_ca=ca)

async def enrol():
    for name in names:
        crt, key = await helper.create_client_certificate(source_id=name, server_ca=ca)
        for source, target, mode in ((crt, helper.CLIENT_PEM_PATH, 0o644), (key, helper.CLIENT_KEY_PATH, 0o600)):
            shutil.copy(source, target.format(name))
            os.chmod(target.format(name), mode)
            if ca:
                os.remove(source)

async def delete():
    for name in names:
        print(await helper.remove_client_cert_on_server(name))

def serve():
    listener = socket.create_server(('127.0.0.1', 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(certfile=helper.SERVER_PEM_PATH, keyfile=helper.SERVER_KEY_PATH)
        context.load_verify_locations(capath=helper.SERVER_SYMLINKS_PATH)
        try:
            with context.wrap_socket(connection, server_side=True) as tls:
                serial = tls.getpeercert()['serialNumber']
                who = 'default' if serial in helper.default_client_cert_ids_list else \
                    helper.source_id_2_cert['cert_2_source_id'].get(serial, 'nobody')
                print(who, flush=True)
                tls.sendall(who.encode())
        except (ssl.SSLError, OSError) as error:
            print('refused:', error, flush=True)

if what == 'serve':
    serve()
else:
    asyncio.run(enrol() if what == 'enrol' else delete())

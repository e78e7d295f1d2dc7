// Package identity makes and reads what a connector proves itself with: the
// tree of certificates and keys, and from it every tls.Config; and tokens.
//
// A Server knows which client has which certificate: it recognises clients in the
// handshake by the whole certificate, gives new ones theirs and takes them away.
// A Client is the other end. Tools change a tree with Create, ReplaceServer and
// so on; whoever changes one holds a lock beside it, and a server that runs sees
// the change at its next handshake.
//
// Create makes the tree below a directory, with the names and links of
// aioconnectors, so that either program reads what the other has made:
//
//	certificates/server/csr_details_template.conf       subject of new certificates
//	certificates/server/csr_details.conf                the same, with the last "O = "
//	certificates/server/server-cert/server.pem, .key    the server's certificate
//	certificates/server/client-certs/default.pem        the certificate new clients show
//	certificates/server/client-certs/symlinks/HASH.N    links to certificates, by SubjectHash
//	certificates/client/server-cert/server.pem          what a client trusts
//	certificates/client/client-certs/default.pem, .key  what a new client shows
//
// and when clients get certificates of their own
//
//	certificates/server/client-certs/NAME.pem               without a CA
//	certificates/server/client-certs/source_id_2_cert.json  names and serial numbers
//	certificates/client/client-certs/NAME.pem, .key         at the client
//
// CreateCA adds what a CA for the clients needs. These files are ours alone, and
// the original does not look at them:
//
//	certificates/server/client-certs/.aioc-issued.json    SHA-256 of what the CA has signed
//	certificates/server/client-certs/.aioc-enrol-NAME.pem about to become NAME.pem
//	certificates/server/server-cert/server_ca.crl         what the CA has revoked
//	certificates/client/client-certs/.aioc-NAME.key       a key that waits for its certificate
//
// Keys are ECDSA P-256 in PKCS#8, certificates are signed by themselves with
// SHA-256, have no extensions and hold for ten years: ends that know them
// compare them, nobody builds chains. Differs: aioconnectors makes RSA keys of
// 2048 bits, and directories that everybody may read; here directories are
// 0700. Keys are 0600 in both.
//
// A client signs its own certificate, and the server, which then has no key of
// it, keeps the certificate: so OpenSSL at an original takes it too. To a client
// of the original the server sends the key that it has made, and forgets it.
//
// Nothing here asks or logs; all functions may be called at the same time, also
// by several processes.
package identity

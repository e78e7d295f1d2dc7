// Package identity makes and reads what a connector proves itself with: the
// tree of certificates and keys, and from it every tls.Config.
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
// Keys are ECDSA P-256 in PKCS#8, certificates are signed by themselves with
// SHA-256, have no extensions and hold for ten years: ends that know them
// compare them, nobody builds chains. Differs: aioconnectors makes RSA keys of
// 2048 bits, and directories that everybody may read; here directories are
// 0700. Keys are 0600 in both.
//
// Nothing here asks, logs or keeps state; all functions may be called at the
// same time, also by several processes.
package identity

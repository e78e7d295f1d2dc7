// Package access answers one question: may this peer go on?
//
//	rules.go    the black and white lists as they are asked: a pure function
//	change.go   adding an entry to a list, or removing one
//	guard.go    Guard: lists first, hooks after, at each of the moments
//	hooks.go    the hooks, and those that are programs of the configuration
//	program.go  one run of a program
//
// It is asked at three moments: when the address of a client is known, when its
// name is known, and when it is about to be given a certificate. At each of them
// the lists are asked in this order, those of names only from the second on:
//
//	whitelisted_clients_ip, _subnet, _id   on each that is not empty, or refused
//	blacklisted_clients_id, _ip, _subnet   on none, or refused
//	hook_server_auth_client                says yes, once the name is known
//	hook_allow_certificate_creation        says yes, before a certificate
//
// Differs: in aioconnectors hook_server_auth_client comes before the lists, and
// gets the text of an address where no certificate has the name (connection.py).
package access

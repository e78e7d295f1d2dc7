// Package envelope is a message as one line of JSON, and back: what aioc-recv
// prints and aioc-send reads with -envelope. No byte of the data or of the
// binary part is ever changed by it.
//
//	{"message_type":"reading","source_id":"pump7","data":{"temp":21.5}}
//
// The header's keys come first, in their order and with the JSON text of their
// values, white space removed. Then come, as far as there is something to say:
//
//	transport      header keys that carry one of the names of this list
//	data           the data, verbatim: JSON without white space around it and
//	               without line breaks
//	data_text      any other data that is UTF-8
//	data_base64    all other data
//	binary_base64  the binary part
//
// Empty data has no key. with_binary is not printed, binary_base64 says it;
// transport_id belongs to one connection and is not printed either. Of several
// header keys with one name the last counts. A header value that only Python
// takes for JSON (NaN, Infinity) is printed as a string.
//
// encode.go has the way out, decode.go the way back. Nothing here starts a
// goroutine; an Encoder or a Decoder is used by one goroutine at a time.
package envelope

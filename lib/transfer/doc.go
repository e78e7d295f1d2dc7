// Package transfer is files on their way between two connectors: which file a
// local program may send, how it is cut, where it lands, and how pieces are put
// together.
//
//	file.go    with_file, the key of a header that speaks of a file
//	place.go   target_directory and dst_name: where a file is to land
//	source.go  opening a file to send, as the program may that named it
//	passed.go  one that the program has passed open
//	kept.go    copies of those that cannot be opened by their name
//	dir.go     a directory in which files land, and nothing outside it
//	stage.go   a file that is not complete, and its way to its name
//	join.go    the chunks of a Python sender
//	sweep.go   what was left behind
//
// A file that arrives is written under a name that begins with ".aioc-", with
// mode 0600, in the directory where it is to land:
//
//	open   .aioc-<32 hex digits>.part   O_CREAT|O_EXCL, 0600
//	write  all bytes
//	fchown, fchmod, fsync
//	link   to its name, or rename where an existing file is replaced
//	fsync  the directory
//
// So no reader ever sees a part of a file, and after a crash there is either
// all of it or none. All names are resolved by os.Root below the directory: a
// name that comes over the network, and a symbolic link that somebody puts in
// its way, cannot lead out of it.
//
// The functions keep no state. A Dir, a Stage and a Source are used by one
// goroutine at a time.
package transfer

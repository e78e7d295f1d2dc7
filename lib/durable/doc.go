// Package durable writes, replaces, removes and locks files so that what it
// reported as done survives a power cut.
//
// A file is never seen half written. New content goes to a temporary file in
// the same directory, which has its final mode from the moment it can be seen,
// and takes the public name only when its bytes are on the disk:
//
//	open    .aioc-<random>.tmp   O_CREAT|O_EXCL, mode, fchmod
//	write   all bytes
//	fsync   the temporary file
//	rename  (WriteFile) or link (CreateFile) to the public name
//	fsync   the directory
//
// An error leaves the old file in place and removes the temporary one. Only an
// error of the last step, the fsync of the directory, may come after the new
// file took its name: the caller must then assume neither. After a kill a
// temporary file may stay behind; it holds nothing that is missed.
//
// The functions keep no state and may be called concurrently.
package durable

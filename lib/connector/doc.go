// Package connector is the daemon: it makes the queues, runs the pumps that
// fill and drain them, and owns start, stop and reload.
//
// A message on its way, and who moves it:
//
//	program --socket--> intake --put--> outbox queue --feed--> peer's link
//	                      with a file: --put--> its queue of files --fileLoop--> outbox queue
//	peer's link --> peerLink --put--> inbox queue --feed--> program's link
//	publication, from either --spread--> outbox queue of each subscriber
//	                      of a durable type: --Topic.Put--> one log, and a view of it in each queue
//
// Goroutines. Every one is started here or in the package named:
//
//	what                      started by           owns                  ends when            waited for by
//	commander's accept loop   Run                  the socket            Run ends             Run
//	own socket's accept loop  Run                  the socket            Run ends             Run
//	counts for the log        Run                  nothing               Run ends             Run
//	send socket's accept loop start                the socket            stop, first thing    stop
//	accept loop for peers     start (server)       the listener          stop, first thing    stop
//	dial loop                 start (client)       the connection        stop                 stop
//	watch for deletions       start (server)       nothing               stop                 stop
//	receiver pump, per type   start                a link to a receiver  stop, last thing     stop
//	files to a peer           sendFiles             one message           none waits, stop     stop
//	sweep of files            start                 nothing               stop                 stop
//	file from a peer          peerLink              its stage             the link ends        runPeer
//	connection, local         local.Serve          intake or program     connection, context  accept loop
//	connection, peer          peer.Serve           peerLink              connection, context  accept loop
//	reader of a log           queue                 messages on disk      memory has enough    queue.Close
//	link's writer             link.Run             the batch             link closes          link.Run
//	link's timers             link                 nothing               link closes          link.Run
//	close of a link           link                 nothing               it is closed         link.Run
//	the connector itself      daemon.Run           the connector         a signal             daemon.Run
//
// The reader of a link is the goroutine that calls link.Run. A link may also
// write in the goroutine that wakes it, as far as that needs no waiting.
//
// Locks are taken in the order Connector.turn, Connector.mu, outbox.mu; and, of
// a link, writing, settling, then feed.mu, the queue's, the link's mu. A wake-up
// only tries for the first two. Functions that a queue calls back are called
// without its lock. Before a queue's comes the lock of one who appends to a log,
// and that of the log itself: with a queue's lock held no log is called, but that of
// a topic, which calls the queue of the topic only. Who appends to that takes
// Connector.mu and the queues of subscribers after its lock.
//
// What has to be on disk before it counts as taken is put as everything else and
// cannot be taken yet. The handler of a link notes where it has put such (unsafe)
// and commits before it lets the link acknowledge, in Flush. While it waits for
// the disk others append, and the next sync is for all of them.
package connector

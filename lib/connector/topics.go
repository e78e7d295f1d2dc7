package connector

import (
	"fmt"
	"slices"
	"time"

	"aioc/lib/config"
	"aioc/lib/queue"
	"aioc/lib/spool"
)

// What is published of a durable type is on disk once, in a log of its topic; see
// queue.Topic. Publications of other types, and those with a file, whose
// messages differ from subscriber to subscriber, are put into each queue.

// topicShelf is where the log of a topic is.
type topicShelf struct{ shelf }

func (s *topicShelf) Durable(string) bool { return true }

func (s *topicShelf) Open(messageType string, state func([]byte) []byte, restore func([]byte), replay func(spool.Record, bool)) (*spool.Log, error) {
	return s.open(messageType, spool.Options{Durable: true, Shared: true, Quota: s.quota, SegmentSize: segmentSize(s.c.cfg.Load().MaxPersistenceSize),
		State: state, Restore: restore, Replay: replay})
}

// segmentSize is the size of the segments of a topic: those of a log with the
// quota of a subscriber. 0 is that of a log without one.
func segmentSize(quota int64) int64 {
	const most, least = 8 << 20, 64 << 10
	if quota <= 0 {
		return 0
	}
	return max(min(most, quota/16), least)
}

// topic returns what is published of a durable type.
func (c *Connector) topic(messageType string) *queue.Topic {
	c.publishedMu.Lock()
	defer c.publishedMu.Unlock()
	t := c.published[messageType]
	if t == nil {
		quota := c.newQuota() // on disk once; what is one subscriber's counts in its view
		quota.SetLimit(0)
		t = queue.NewTopic(messageType, &topicShelf{shelf{c: c, dir: c.paths.SpoolTopic, quota: quota}}, c.order, c.budget)
		c.published[messageType] = t
	}
	return t
}

// allTopics returns those that there are.
func (c *Connector) allTopics() (all []*queue.Topic) {
	c.publishedMu.Lock()
	defer c.publishedMu.Unlock()
	for _, t := range c.published {
		all = append(all, t)
	}
	return all
}

// subscribersOf returns where publications wait for the peers of a fan.
func (f *fan) subscribersOf() []queue.Subscriber {
	to := make([]queue.Subscriber, 0, len(f.boxes))
	for _, b := range f.boxes {
		to = append(to, queue.Subscriber{Name: b.name, Queue: b.q, Quota: b.quota})
	}
	return to
}

// spreadLasting is spread for a durable type. With an error, which wraps
// queue.ErrDisk, none of the frames that are returned was kept for anybody.
func (c *Connector) spreadLasting(f *fan, frames []byte, extra queue.Extra, put *unsafe) (rest []byte, err error) {
	t := c.topic(f.topic)
	to := f.subscribersOf()
	hall := queue.Hall{
		Still: func(to []queue.Subscriber) []queue.Subscriber {
			if c.table.Version() == f.table {
				return to
			}
			now := c.table.Subscribers(f.topic)
			return slices.DeleteFunc(to, func(s queue.Subscriber) bool { return !slices.Contains(now, s.Name) })
		},
		Queue: func(name string) (*queue.Queue, *spool.Quota) {
			if b := c.box(name, true); b != nil {
				return b.q, b.quota
			}
			return nil, nil
		},
	}
	pages := queue.Pages(frames, c.budget)
	defer func() {
		for _, page := range pages {
			page.Release()
		}
	}()
	for _, page := range pages {
		extra.Page, extra.Round = page, 0
		if to, err = t.Put(page.Frames(), &extra, to, hall); err != nil {
			break
		}
		frames = frames[len(page.Frames()):]
		if extra.Round != 0 {
			put.add(t, f.topic, extra.Round)
		}
		for _, s := range to {
			if s.Lost > 0 {
				c.drop("queue of a subscriber full", s.Name, f.topic, s.Lost)
			}
		}
	}
	return frames, err
}

// unsubscribeGrace is how long a subscription that has ended may begin again
// without the loss of what waits: clients of the original end theirs and begin them
// again when they change the list.
const unsubscribeGrace = 10 * time.Second

// left arranges for what waits for a client to be discarded that has ended its
// subscriptions to the topics.
func (c *Connector) left(name string, topics []string) {
	for _, topic := range topics {
		if c.lasting(topic) {
			time.AfterFunc(c.grace, func() { c.endSubscription(name, topic) })
		}
	}
}

// endSubscription discards what waits for a client that does not subscribe to the
// topic.
func (c *Connector) endSubscription(name, topic string) {
	if slices.Contains(c.table.Subscribers(topic), name) {
		return
	}
	c.publishedMu.Lock()
	t := c.published[topic]
	c.publishedMu.Unlock()
	if t == nil {
		return
	}
	if n := t.End(name, func() bool { return !slices.Contains(c.table.Subscribers(topic), name) }); n > 0 {
		c.drop("unsubscribed", name, topic, n)
	}
	if b := c.box(name, false); b != nil {
		c.forget(b)
	}
}

// openTopics opens the logs of what was published. known: it is known who
// subscribes to what.
func (c *Connector) openTopics(known bool) error {
	types, err := config.SpoolNames(c.paths.SpoolTopics)
	if err != nil || !c.server {
		return err
	}
	for _, typ := range types {
		t := c.topic(typ)
		names, err := t.Open()
		if err != nil {
			return err
		}
		for _, name := range names {
			b := c.box(name, true)
			if b == nil {
				c.log.Warn("publications may be on disk for a peer that cannot be one", "peer", name, "dir", c.paths.SpoolTopic(typ))
				continue
			}
			n, err := t.Attach(&queue.Subscriber{Name: name, Queue: b.q, Quota: b.quota})
			if err != nil {
				return fmt.Errorf("for %s: %w", name, err)
			}
			if n > 0 {
				c.log.Info("publications on disk", "peer", name, "type", typ, "n", n)
			}
			if known && !slices.Contains(c.table.Subscribers(typ), name) {
				c.left(name, []string{typ}) // the connector ended before that was done
			}
		}
		if len(c.table.Subscribers(typ)) == 0 && t.Idle() {
			t.Remove()
			c.publishedMu.Lock()
			delete(c.published, typ)
			c.publishedMu.Unlock()
		}
	}
	return nil
}

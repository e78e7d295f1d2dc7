package broker

import (
	"encoding/json"
	"errors"
	"fmt"

	"aioc/lib/config"
	"aioc/lib/wire"
)

// Change is what a client asks its broker for: the data of a wire.TypePubSub
// message that has no message_type_publish.
type Change struct {
	Subscribe   []string `json:"subscribe_message_types,omitempty"`
	Unsubscribe []string `json:"unsubscribe_message_types,omitempty"`

	// Only says that Subscribe is all that the client wants: what it had
	// subscribed to before is gone. A broker of the original does not know it.
	Only bool `json:"only,omitempty"`
}

// ParseChange reads a Change.
func ParseChange(data []byte) (Change, error) {
	var c Change
	if err := json.Unmarshal(data, &c); err != nil {
		return Change{}, fmt.Errorf("subscription: %w", err)
	}
	if c.Subscribe == nil && c.Unsubscribe == nil && !c.Only {
		return Change{}, errors.New("subscription: neither subscribe_message_types nor unsubscribe_message_types")
	}
	return c, nil
}

// Data returns c as the data of a message.
func (c Change) Data() []byte {
	text, err := json.Marshal(c)
	if err != nil {
		return nil // strings always marshal
	}
	return text
}

// Topic returns the topic of a publication.
func Topic(h *wire.Header) (string, error) {
	topic := string(h.Publish)
	if err := config.ValidType(topic); err != nil {
		return "", fmt.Errorf("publication: %w", err)
	}
	return topic, nil
}

// AppendHeader appends the header that the subscribers get instead of the
// publication's: of the topic, from the broker. It has no destination_id, which
// nobody looks at, so that all subscribers are sent the same bytes.
//
// Differs: the original knows the keys of its own API only, any other loses the
// publication; and a response_id makes it disconnect its subscribers
// (aioconnectors connection.py), so that goes no further.
func AppendHeader(dst []byte, h *wire.Header, topic, broker string) []byte {
	return wire.AppendEdited(dst, h.Raw,
		wire.Edit{Key: "message_type", Value: wire.AppendString(nil, topic)},
		wire.Edit{Key: "source_id", Value: wire.AppendString(nil, broker)},
		wire.Edit{Key: "message_type_publish"},
		wire.Edit{Key: "destination_id"},
		wire.Edit{Key: "transport_id"},
		wire.Edit{Key: "response_id"},
	)
}

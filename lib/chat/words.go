package chat

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
)

const (
	// wordsLabel keeps these words apart from all else that is derived from
	// a TLS session.
	wordsLabel = "EXPORTER-aioc-chat-words"

	// wordCount words of 8 bits each: who stands between has to find, within
	// the seconds that a handshake may take, a second session with the same
	// 48 bits.
	wordCount = 6
)

// sessionWords returns words that are the same at both ends of a TLS session
// and at no other: somebody who sits between has two sessions, and different
// words. Before TLS 1.3 there are none.
func sessionWords(s *tls.ConnectionState) (string, error) {
	if s.Version < tls.VersionTLS13 {
		return "", errors.New("the session is older than TLS 1.3")
	}
	b, err := s.ExportKeyingMaterial(wordsLabel, nil, wordCount)
	if err != nil {
		return "", fmt.Errorf("derive words from the session: %w", err)
	}
	return spell(b), nil
}

// spell writes each byte as a word.
func spell(b []byte) string {
	list := strings.Fields(wordList)
	words := make([]string, len(b))
	for i, v := range b {
		words[i] = list[v]
	}
	return strings.Join(words, " ")
}

// wordList is 256 words that are easy to say and hard to mistake for each
// other. Both ends must have the same list: it is never changed.
const wordList = `
acid acorn actor alarm album alley amber angle ankle apple apron arch arrow atlas attic bacon
badge bagel baker bamboo banjo barn basil basin beach beard beast bench berry bingo birch bison
blade blanket blossom board boat bonus boots bottle bowl brick bridge broom brush bubble bucket bugle
bunny butter button cabin cable cactus camel camera canal candle canoe canvas carbon carpet carrot castle
cedar celery chain chalk cherry chess chili cider cinema circus clay cliff clock cloud clover cobra
coffee comet copper coral cotton cousin cradle crane crayon cricket crown crystal cube curtain daisy dance
denim desert diary dinner doctor dolphin donkey dragon drum eagle earth easel echo eclipse editor elbow
elephant emerald engine fabric falcon fender ferry fiddle finger flame flute forest fossil fountain fox frost
galaxy garden garlic gecko ghost giant ginger giraffe glacier globe glove goblin gold grape gravel guitar
hammer harbor harvest hazel helmet heron hockey honey horse hotel iceberg igloo insect iron island ivory
jacket jaguar jelly jewel jigsaw judge jungle kayak kettle kiosk kitten koala ladder lagoon lantern laptop
laser lava lemon leopard lilac linen lizard lobster locket lotus magnet mango maple marble meadow melon
mirror monkey mosaic motor muffin museum mustard napkin needle nickel noodle nugget nutmeg oasis ocean olive
onion orbit orchid otter oxygen oyster paddle palace panda paper parrot pebble pelican pepper piano pigeon
pillow pilot pirate planet plum pocket poet pony potato prism puzzle pyramid quartz quilt rabbit radar
raven river robot rocket saddle salad salmon satin shadow silver spider spoon sugar tiger tunnel velvet
`

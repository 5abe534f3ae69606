package main

import (
	"fmt"
	"strings"
	"sync"

	"google.golang.org/grpc/status"
)

// counts is what the hosts said to the scheduler, and what it answered.
type counts struct {
	mutex    sync.Mutex
	messages map[string]uint64 // to the scheduler, by kind
	parents  map[int]uint64    // answers that gave so many parents
	told     map[string]uint64 // answers that sent a peer to the origin
	failures map[string]uint64 // streams and calls that ended with an error
}

func newCounts() *counts {
	return &counts{
		messages: map[string]uint64{}, parents: map[int]uint64{}, told: map[string]uint64{}, failures: map[string]uint64{},
	}
}

func (c *counts) sent(kind string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.messages[kind]++
}

func (c *counts) gave(parents int) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.parents[parents]++
}

func (c *counts) toldTo(why string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.told[why]++
}

func (c *counts) failed(err error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.failures[status.Code(err).String()]++
}

func (c *counts) report() map[string]any {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return map[string]any{"messages": c.messages, "parents": c.parents, "told_to_read_origin": c.told, "failures": c.failures}
}

// kind is the name of a message.
func kind(request *message) string {
	return strings.TrimPrefix(fmt.Sprintf("%T", request.GetRequest()), "*scheduler.AnnouncePeerRequest_")
}

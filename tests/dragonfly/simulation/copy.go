package main

import (
	"context"
	"sync"
)

// fileCopy is what a host has of a file: all downloads of the host that want the file share it.
type fileCopy struct {
	size    sync.Once // asked of the origin, before anything is fetched
	mutex   sync.Mutex
	here    []bool
	coming  []bool
	arrived []uint32      // the pieces that are here, in their order of arrival
	changed chan struct{} // closed and replaced with every change
}

func newFileCopy(pieces int) *fileCopy {
	return &fileCopy{here: make([]bool, pieces), coming: make([]bool, pieces), changed: make(chan struct{})}
}

// take reports whether the caller has to fetch the piece: not if it is here.  Waits while another download fetches it.
func (c *fileCopy) take(ctx context.Context, piece uint32) bool {
	for {
		c.mutex.Lock()
		here, coming, changed := c.here[piece], c.coming[piece], c.changed
		if !here && !coming {
			c.coming[piece] = true
		}
		c.mutex.Unlock()
		if here || !coming {
			return !here
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// give ends what take began.
func (c *fileCopy) give(piece uint32, arrived bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.coming[piece], c.here[piece] = false, arrived
	if arrived {
		c.arrived = append(c.arrived, piece)
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// since gives the pieces that arrived after the first count of them, and what is closed when there are more.
func (c *fileCopy) since(count int) (pieces []uint32, whole bool, changed <-chan struct{}) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.arrived[count:], len(c.arrived) == len(c.here), c.changed
}

func (c *fileCopy) missing() []uint32 {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	var pieces []uint32
	for piece, here := range c.here {
		if !here {
			pieces = append(pieces, uint32(piece))
		}
	}
	return pieces
}

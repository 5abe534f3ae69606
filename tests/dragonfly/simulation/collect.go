package main

import (
	"context"
	"sync"
	"time"
)

// dfdaemon waits so long for the other parents, once one has a piece.
const waitForParents = 100 * time.Millisecond

// found is a piece, and the parents that have it.
type found struct {
	piece   uint32
	parents []string
}

// collector learns which parents have which pieces (resource/piece_collector.rs).
type collector struct {
	mutex   sync.Mutex
	wanted  map[uint32][]string // parents that have it, of each piece that was not yet given out
	active  int                 // parents that still may have more
	pieces  chan found
	finish  context.CancelFunc
	waiting sync.WaitGroup
}

// collect gives each piece that the download lacks once, when all parents have it, or soon after one has.  The channel is closed when
// no parent will have more.
func collect(ctx context.Context, d *download, parents map[string]*host) <-chan found {
	missing := d.file.missing()
	ctx, finish := context.WithCancel(ctx)
	c := &collector{wanted: map[uint32][]string{}, active: len(parents), pieces: make(chan found, len(missing)), finish: finish}
	for _, piece := range missing {
		c.wanted[piece] = nil
	}
	var all sync.WaitGroup
	for id, parent := range parents {
		all.Go(func() {
			c.watch(ctx, id, parent, parent.copies[d.number])
			c.ended()
		})
	}
	go func() {
		all.Wait()
		finish()
		c.waiting.Wait()
		close(c.pieces)
	}()
	return c.pieces
}

// watch hears of each piece that a parent has or gets, until that has all, or is dead.
func (c *collector) watch(ctx context.Context, id string, parent *host, file *fileCopy) {
	seen := 0
	for parent.alive.Err() == nil {
		pieces, whole, changed := file.since(seen)
		for _, piece := range pieces {
			c.has(id, piece)
		}
		seen += len(pieces)
		if whole {
			return
		}
		select {
		case <-changed:
		case <-parent.alive.Done():
		case <-ctx.Done():
			return
		}
	}
}

func (c *collector) has(parent string, piece uint32) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	parents, wanted := c.wanted[piece]
	if !wanted {
		return
	}
	c.wanted[piece] = append(parents, parent)
	if len(c.wanted[piece]) >= c.active {
		c.giveOut(piece)
	} else if len(parents) == 0 {
		c.waiting.Add(1)
		time.AfterFunc(waitForParents, func() {
			c.mutex.Lock()
			defer c.mutex.Unlock()
			c.giveOut(piece)
			c.waiting.Done()
		})
	}
}

// giveOut is called with the mutex held.
func (c *collector) giveOut(piece uint32) {
	if parents, wanted := c.wanted[piece]; wanted {
		delete(c.wanted, piece)
		c.pieces <- found{piece, parents}
	}
	if len(c.wanted) == 0 {
		c.finish()
	}
}

// ended is called once for each parent that has all, or is dead: with the last of them goes out what some parent has.
func (c *collector) ended() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.active--
	if c.active > 0 {
		return
	}
	for piece, parents := range c.wanted {
		if len(parents) > 0 {
			c.giveOut(piece)
		}
	}
}

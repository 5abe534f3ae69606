package main

import (
	"sync"
	"sync/atomic"
)

// Why a host reads pieces from the origin.
const (
	asSeed = "seed"         // it is the seed peer
	told   = "told"         // the scheduler told the host to
	alone  = "on_their_own" // the scheduler was away, refused, or gave no parents
)

// origin counts what is read from it.
type origin struct {
	half     chan struct{} // closed when halfBytes have been sent
	heads    atomic.Uint64 // requests for one byte of a file, to learn its size
	mutex    sync.Mutex
	until    uint64 // bytes until half
	requests map[string]uint64
	bytes    map[string]uint64
}

func newOrigin(halfBytes uint64) *origin {
	return &origin{half: make(chan struct{}), until: halfBytes, requests: map[string]uint64{}, bytes: map[string]uint64{}}
}

func (o *origin) sent(why string, bytes uint64) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.requests[why]++
	o.bytes[why] += bytes
	if o.until > 0 && o.until <= bytes {
		close(o.half)
	}
	o.until -= min(o.until, bytes)
}

func (o *origin) report() map[string]any {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return map[string]any{"requests_for_size": o.heads.Load(), "requests_for_pieces": o.requests, "bytes": o.bytes}
}

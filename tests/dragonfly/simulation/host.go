package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	commonv2 "d7y.io/api/v2/pkg/apis/common/v2"
	schedulerv2 "d7y.io/api/v2/pkg/apis/scheduler/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
)

var errDead = errors.New("the host is dead")

// host is a node with its dfdaemon.
type host struct {
	swarm      *swarm
	id         string
	address    string
	port       int32
	isSeed     bool
	scheduler  schedulerv2.SchedulerClient
	alive      context.Context // done when the host is dead
	die        context.CancelFunc
	copies     []*fileCopy // of each file
	up, down   link
	sentBytes  atomic.Uint64
	foundAsked chan struct{}
}

func newHost(s *swarm, number int, isSeed bool) *host {
	h := &host{swarm: s, id: fmt.Sprintf("host-%d", number), port: 4000, isSeed: isSeed, foundAsked: make(chan struct{}, 1)}
	// Nobody connects to it: only the seed peer has an address that is real.
	h.address = fmt.Sprintf("10.99.%d.%d", number/250, number%250+1)
	h.alive, h.die = context.WithCancel(context.Background())
	for range s.files {
		h.copies = append(h.copies, newFileCopy(s.pieces))
	}
	connection, err := grpc.NewClient(s.options.scheduler, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	h.scheduler = schedulerv2.NewSchedulerClient(connection)
	context.AfterFunc(h.alive, func() { connection.Close() })
	return h
}

func (h *host) hasModel() bool {
	for _, each := range h.copies {
		if len(each.missing()) > 0 {
			return false
		}
	}
	return true
}

// announce tells the scheduler of this host; it must know it before it schedules it.
func (h *host) announce() {
	bits := uint64(h.swarm.linkBytesPerS * 8)
	kind := uint32(0)
	if h.isSeed {
		kind = 1
	}
	request := &schedulerv2.AnnounceHostRequest{
		Host: &commonv2.Host{
			Id: h.id, Type: kind, Hostname: h.id, Name: h.id, Ip: h.address, Port: h.port, DownloadPort: h.port, ProxyPort: 4001,
			Network: &commonv2.Network{MaxRxBandwidth: bits, MaxTxBandwidth: bits},
		},
		Interval: durationpb.New(h.swarm.announceInterval),
	}
	h.swarm.counts.sent("AnnounceHost")
	if _, err := h.scheduler.AnnounceHost(h.alive, request); err != nil {
		h.swarm.counts.failed(err)
	}
}

func (h *host) keepAnnouncing() {
	for {
		select {
		case <-h.alive.Done():
			return
		case <-time.After(h.swarm.announceInterval):
			h.announce()
		}
	}
}

// send takes the time that a piece needs from one host to another.
func (h *host) send(piece uint32, to *host) error {
	if h.alive.Err() != nil {
		return errDead
	}
	until := later(h.up.reserve(h.pieceTime()), to.down.reserve(h.pieceTime()))
	select {
	case <-time.After(time.Until(until)):
		h.sentBytes.Add(h.swarm.pieceBytes)
		return nil
	case <-h.alive.Done():
		return errDead
	case <-to.alive.Done():
		return errDead
	}
}

func (h *host) pieceTime() time.Duration {
	return time.Duration(float64(h.swarm.pieceBytes) / h.swarm.linkBytesPerS * float64(time.Second))
}

// link moves one piece after another.
type link struct {
	mutex sync.Mutex
	free  time.Time
}

// reserve gives the end of the next free time of this length.
func (l *link) reserve(length time.Duration) time.Time {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.free = later(l.free, time.Now()).Add(length)
	return l.free
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// A thousand hosts of Dragonfly on its real scheduler.
//
// Each host says to the scheduler, by its own connection, what dfdaemon 1.5.10 says when a whole file is asked of it (the
// crate dragonfly-client, resource/task.rs), and does what the scheduler decides.  No bytes move: a piece takes the time that
// the links of both hosts need for it, and is counted.  What differs from a dfdaemon is in benchmarks/results/dragonfly.md.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

type options struct {
	scheduler        string
	address          string
	nodes            int
	seeds            int
	files            int
	pieces           int
	pieceBytes       uint64
	workers          int
	within           time.Duration
	linkBytesPerS    float64
	announceInterval time.Duration
	killSeed         bool
}

func main() {
	var o options
	flag.StringVar(&o.scheduler, "scheduler", "127.0.0.1:8002", "where the scheduler listens")
	flag.StringVar(&o.address, "address", "127.0.0.1", "where the scheduler reaches the seed peers")
	flag.IntVar(&o.nodes, "nodes", 10, "hosts that want the model")
	flag.IntVar(&o.seeds, "seeds", 1, "how many of them are seed peers")
	flag.IntVar(&o.files, "files", 1, "files of the model")
	flag.IntVar(&o.pieces, "pieces", 24, "pieces of each file")
	flag.Uint64Var(&o.pieceBytes, "piece-bytes", 4<<20, "bytes of each piece")
	flag.IntVar(&o.workers, "workers", 16, "files that a host wants at a time")
	flag.DurationVar(&o.within, "within", 0, "the hosts begin within this time, by chance")
	flag.Float64Var(&o.linkBytesPerS, "link-bytes-per-s", 1.25e9, "what a host sends, and receives")
	flag.DurationVar(&o.announceInterval, "announce-interval", 5*time.Minute, "how often a host announces itself")
	flag.BoolVar(&o.killSeed, "kill-seed", false, "a seed peer dies when the origin has sent half a model")
	flag.Parse()

	s := newSwarm(o)
	s.join()
	say(map[string]any{"event": "joined"})
	go s.watchHalf()
	s.deliver()
	say(s.report())
}

// say writes one line for who started this program.
func say(message map[string]any) {
	if err := json.NewEncoder(os.Stdout).Encode(message); err != nil {
		panic(err)
	}
}

// swarm is all hosts, and the origin that they share.
type swarm struct {
	options
	origin *origin
	hosts  []*host
	byID   map[string]*host
	counts *counts
}

func newSwarm(o options) *swarm {
	s := &swarm{options: o, byID: map[string]*host{}, counts: newCounts(), origin: newOrigin(uint64(o.files*o.pieces) * o.pieceBytes / 2)}
	for number := range o.nodes {
		each := newHost(s, number, number < o.seeds)
		s.hosts = append(s.hosts, each)
		s.byID[each.id] = each
	}
	return s
}

// join announces all hosts, and waits until the scheduler has found the seed peers: it looks every 30 s.
func (s *swarm) join() {
	seeds := s.hosts[:s.seeds]
	for _, each := range seeds {
		each.serveAsSeed(s.address)
	}
	var all sync.WaitGroup
	for _, each := range s.hosts {
		all.Go(each.announce)
	}
	all.Wait()
	for _, each := range seeds {
		each.waitUntilFound()
	}
	for _, each := range s.hosts {
		go each.keepAnnouncing()
	}
}

// watchHalf says when the origin has sent half a model.
func (s *swarm) watchHalf() {
	<-s.origin.half
	if s.killSeed {
		s.hosts[0].die()
	}
	say(map[string]any{"event": "half"})
}

// deliver lets each host that lives fetch all files.
func (s *swarm) deliver() {
	var all sync.WaitGroup
	for _, each := range s.hosts {
		all.Go(func() {
			if s.within > 0 {
				time.Sleep(rand.N(s.within))
			}
			each.fetchModel(each.alive)
		})
	}
	all.Wait()
}

func (s *swarm) report() map[string]any {
	withModel, mostSent := 0, uint64(0)
	for _, each := range s.hosts {
		if each.hasModel() {
			withModel++
		}
		mostSent = max(mostSent, each.sentBytes.Load())
	}
	return map[string]any{
		"event":            "done",
		"model_bytes":      uint64(s.files*s.pieces) * s.pieceBytes,
		"nodes_with_model": withModel,
		"most_sent_bytes":  mostSent,
		"origin":           s.origin.report(),
		"scheduler":        s.counts.report(),
	}
}

// fetchModel asks for all files, some at a time.
func (h *host) fetchModel(ctx context.Context) {
	numbers := make(chan int, h.swarm.files)
	for number := range h.swarm.files {
		numbers <- number
	}
	close(numbers)
	var workers sync.WaitGroup
	for range h.swarm.workers {
		workers.Go(func() {
			for number := range numbers {
				newDownload(h, number).run(ctx, false)
			}
		})
	}
	workers.Wait()
}

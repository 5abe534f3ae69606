package main

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	commonv2 "d7y.io/api/v2/pkg/apis/common/v2"
	schedulerv2 "d7y.io/api/v2/pkg/apis/scheduler/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Defaults of dfdaemon 1.5.10.
const (
	piecesAtATime    = 8
	maxScheduleCount = 5
)

var peers atomic.Uint64

// download is one request for a whole file: a peer, for the scheduler.
type download struct {
	host   *host
	number int
	file   *fileCopy
	taskID string
	peerID string
	outbox chan *message
	broken chan struct{} // closed when the stream to the scheduler is
}

func newDownload(h *host, number int) *download {
	return &download{
		host: h, number: number, file: h.copies[number], taskID: fmt.Sprintf("file-%d", number),
		peerID: fmt.Sprintf("%s-peer-%d", h.id, peers.Add(1)),
		outbox: make(chan *message, 4), broken: make(chan struct{}),
	}
}

// run is done when the file is here, or the host dead.  A seed peer that was triggered reads the origin first, and a file that it
// has is made known anew.
func (d *download) run(ctx context.Context, triggered bool) {
	s := d.host.swarm
	missing := d.file.missing()
	d.file.size.Do(func() { s.origin.heads.Add(1) })
	if len(missing) > 0 || triggered {
		if err := d.withScheduler(ctx, triggered, len(missing) == 0); err != nil {
			s.counts.failed(err)
		}
	}
	d.fromOrigin(ctx, d.file.missing(), alone, nil)
}

// withScheduler does what the scheduler says, until the file is here or the scheduler is of no more use.
func (d *download) withScheduler(ctx context.Context, triggered, whole bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := d.host.scheduler.AnnouncePeer(ctx)
	if err != nil {
		return err
	}
	go d.sendAll(ctx, stream)
	d.tell(&message{Request: &schedulerv2.AnnouncePeerRequest_RegisterPeerRequest{
		RegisterPeerRequest: &schedulerv2.RegisterPeerRequest{Download: d.wanted(triggered, whole)},
	}})
	for scheduled := 1; ; scheduled++ {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		parents := answer.GetNormalTaskResponse().GetCandidateParents()
		last := finished()
		switch {
		case scheduled > maxScheduleCount:
			last = failed()
		case parents != nil:
			d.tell(started())
			d.fromParents(ctx, parents)
			if len(d.file.missing()) > 0 {
				d.tell(reschedule(parents))
				continue
			}
		case answer.GetNeedBackToSourceResponse() != nil:
			d.backToSource(ctx)
			last = sourceFinished()
		default:
			d.tell(started())
		}
		d.tell(last)
		// The scheduler closes the stream when it has read that.
		_, _ = stream.Recv()
		return nil
	}
}

// sendAll sends what is told, one after another.
func (d *download) sendAll(ctx context.Context, stream schedulerv2.Scheduler_AnnouncePeerClient) {
	defer close(d.broken)
	for {
		select {
		case request := <-d.outbox:
			request.HostId, request.TaskId, request.PeerId = d.host.id, d.taskID, d.peerID
			if stream.Send(request) != nil {
				return
			}
			d.host.swarm.counts.sent(kind(request))
		case <-ctx.Done():
			return
		}
	}
}

// tell waits until the message is on its way to the scheduler, or the stream broken.
func (d *download) tell(request *message) {
	select {
	case d.outbox <- request:
	case <-d.broken:
	}
}

// wanted is what dfdaemon's proxy makes of lading's request.
func (d *download) wanted(triggered, whole bool) *commonv2.Download {
	s := d.host.swarm
	return &commonv2.Download{
		Url: "http://origin/" + d.taskID, Type: commonv2.TaskType_STANDARD, ContentForCalculatingTaskId: &d.taskID,
		NeedBackToSource: triggered && !whole, MetadataOnly: whole,
		ConcurrentPieceCount: proto.Uint32(piecesAtATime), PieceLength: &s.pieceBytes,
		ActualPieceLength: &s.pieceBytes, ActualPieceCount: proto.Uint64(uint64(s.pieces)),
		ActualContentLength: proto.Uint64(uint64(s.pieces) * s.pieceBytes),
	}
}

func (d *download) backToSource(ctx context.Context) {
	why := told
	if d.host.isSeed {
		why = asSeed
	}
	d.host.swarm.counts.toldTo(why)
	d.tell(sourceStarted())
	d.fromOrigin(ctx, d.file.missing(), why, func(piece *commonv2.Piece) { d.tell(sourcePiece(piece)) })
}

// fromOrigin reads pieces from the origin, some at a time.
func (d *download) fromOrigin(ctx context.Context, pieces []uint32, why string, report func(*commonv2.Piece)) {
	some(slices.Values(pieces), func(piece uint32) {
		if !d.file.take(ctx, piece) {
			return
		}
		began := time.Now()
		select {
		case <-time.After(time.Until(d.host.down.reserve(d.host.pieceTime()))):
			d.host.swarm.origin.sent(why, d.host.swarm.pieceBytes)
			d.file.give(piece, true)
			if report != nil {
				report(d.piece(piece, "", began))
			}
		case <-d.host.alive.Done():
			d.file.give(piece, false)
		}
	})
}

// some does it for all of them, as many at a time as dfdaemon.
func some[T any](them iter.Seq[T], do func(T)) {
	places := make(chan struct{}, piecesAtATime)
	var all sync.WaitGroup
	for each := range them {
		places <- struct{}{}
		all.Go(func() {
			do(each)
			<-places
		})
	}
	all.Wait()
}

// fromParents fetches what the parents have and get; a piece that none of them gives is left out.
func (d *download) fromParents(ctx context.Context, candidates []*commonv2.Peer) {
	parents := map[string]*host{}
	for _, each := range candidates {
		parents[each.GetId()] = d.host.swarm.byID[each.GetHost().GetId()]
	}
	d.host.swarm.counts.gave(len(parents))
	pieces := func(yield func(found) bool) {
		for each := range collect(ctx, d, parents) {
			// As dfdaemon does: without its scheduler it goes on alone.
			if d.isBroken() || !yield(each) {
				return
			}
		}
	}
	some(pieces, func(each found) { d.fromOneOf(ctx, each, parents) })
}

func (d *download) isBroken() bool {
	select {
	case <-d.broken:
		return true
	default:
		return false
	}
}

// fromOneOf fetches a piece from any of the parents that have it.
func (d *download) fromOneOf(ctx context.Context, found found, parents map[string]*host) {
	if !d.file.take(ctx, found.piece) {
		return
	}
	began := time.Now()
	having, last := slices.Clone(found.parents), ""
	for len(having) > 0 {
		chosen := rand.IntN(len(having))
		last = having[chosen]
		if parents[last].send(found.piece, d.host) == nil {
			d.file.give(found.piece, true)
			d.tell(peerPiece(d.piece(found.piece, last, began)))
			return
		}
		having = slices.Delete(having, chosen, chosen+1)
	}
	d.file.give(found.piece, false)
	d.tell(pieceFailed(found.piece, last))
}

func (d *download) piece(number uint32, parent string, began time.Time) *commonv2.Piece {
	bytes := d.host.swarm.pieceBytes
	piece := &commonv2.Piece{
		Number: number, Offset: uint64(number) * bytes, Length: bytes,
		Cost: durationpb.New(time.Since(began)), CreatedAt: timestamppb.New(began),
	}
	if parent != "" {
		piece.ParentId = &parent
	}
	return piece
}

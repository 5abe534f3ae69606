package main

import (
	commonv2 "d7y.io/api/v2/pkg/apis/common/v2"
	"google.golang.org/protobuf/proto"

	schedulerv2 "d7y.io/api/v2/pkg/apis/scheduler/v2"
)

// What a host says to the scheduler; who says it is added when it is sent.

type message = schedulerv2.AnnouncePeerRequest

func started() *message {
	return &message{Request: &schedulerv2.AnnouncePeerRequest_DownloadPeerStartedRequest{
		DownloadPeerStartedRequest: &schedulerv2.DownloadPeerStartedRequest{},
	}}
}

func finished() *message {
	return &message{Request: &schedulerv2.AnnouncePeerRequest_DownloadPeerFinishedRequest{
		DownloadPeerFinishedRequest: &schedulerv2.DownloadPeerFinishedRequest{},
	}}
}

func failed() *message {
	return &message{Request: &schedulerv2.AnnouncePeerRequest_DownloadPeerFailedRequest{
		DownloadPeerFailedRequest: &schedulerv2.DownloadPeerFailedRequest{Description: proto.String("max schedule count exceeded")},
	}}
}

func reschedule(parents []*commonv2.Peer) *message {
	return &message{Request: &schedulerv2.AnnouncePeerRequest_ReschedulePeerRequest{
		ReschedulePeerRequest: &schedulerv2.ReschedulePeerRequest{CandidateParents: parents},
	}}
}

func peerPiece(piece *commonv2.Piece) *message {
	piece.TrafficType = commonv2.TrafficType_REMOTE_PEER.Enum()
	return &message{Request: &schedulerv2.AnnouncePeerRequest_DownloadPieceFinishedRequest{
		DownloadPieceFinishedRequest: &schedulerv2.DownloadPieceFinishedRequest{Piece: piece},
	}}
}

func pieceFailed(piece uint32, parent string) *message {
	return &message{Request: &schedulerv2.AnnouncePeerRequest_DownloadPieceFailedRequest{
		DownloadPieceFailedRequest: &schedulerv2.DownloadPieceFailedRequest{PieceNumber: &piece, ParentId: parent, Temporary: true},
	}}
}

func sourceStarted() *message {
	return &message{Request: &schedulerv2.AnnouncePeerRequest_DownloadPeerBackToSourceStartedRequest{
		DownloadPeerBackToSourceStartedRequest: &schedulerv2.DownloadPeerBackToSourceStartedRequest{},
	}}
}

func sourcePiece(piece *commonv2.Piece) *message {
	piece.TrafficType = commonv2.TrafficType_BACK_TO_SOURCE.Enum()
	return &message{Request: &schedulerv2.AnnouncePeerRequest_DownloadPieceBackToSourceFinishedRequest{
		DownloadPieceBackToSourceFinishedRequest: &schedulerv2.DownloadPieceBackToSourceFinishedRequest{Piece: piece},
	}}
}

func sourceFinished() *message {
	return &message{Request: &schedulerv2.AnnouncePeerRequest_DownloadPeerBackToSourceFinishedRequest{
		DownloadPeerBackToSourceFinishedRequest: &schedulerv2.DownloadPeerBackToSourceFinishedRequest{},
	}}
}

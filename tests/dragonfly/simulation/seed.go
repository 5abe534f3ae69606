package main

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"

	dfdaemonv2 "d7y.io/api/v2/pkg/apis/dfdaemon/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// seedServer is what the scheduler calls of a seed peer.
type seedServer struct {
	dfdaemonv2.UnimplementedDfdaemonUploadServer
	healthv1.UnimplementedHealthServer
	host *host
}

// serveAsSeed listens until the host dies.
func (h *host) serveAsSeed(address string) {
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		panic(err)
	}
	h.address, h.port = address, int32(listener.Addr().(*net.TCPAddr).Port)
	server := grpc.NewServer()
	dfdaemonv2.RegisterDfdaemonUploadServer(server, &seedServer{host: h})
	healthv1.RegisterHealthServer(server, &seedServer{host: h})
	context.AfterFunc(h.alive, server.Stop)
	go server.Serve(listener)
}

// waitUntilFound waits for the scheduler's first question whether the seed peer is well; just after the answer it uses it.
func (h *host) waitUntilFound() {
	<-h.foundAsked
	time.Sleep(time.Second)
}

func (s *seedServer) Check(context.Context, *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	select {
	case s.host.foundAsked <- struct{}{}:
	default:
	}
	return &healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_SERVING}, nil
}

// DownloadTask fetches a file because the scheduler says so.
func (s *seedServer) DownloadTask(asked *dfdaemonv2.DownloadTaskRequest, _ dfdaemonv2.DfdaemonUpload_DownloadTaskServer) error {
	name := asked.GetDownload().GetContentForCalculatingTaskId()
	number, err := strconv.Atoi(strings.TrimPrefix(name, "file-"))
	if err != nil || number >= s.host.swarm.files {
		return status.Error(codes.InvalidArgument, name)
	}
	newDownload(s.host, number).run(s.host.alive, true)
	return nil
}

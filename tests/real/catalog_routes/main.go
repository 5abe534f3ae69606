// What the router of Kubeflow's catalog (chi) and Go's net/url make of a path: the routes and the decoding of
// github.com/kubeflow/model-registry, catalog/internal/server/openapi, without its database.
package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/go-chi/chi/v5"
)

func main() {
	router := chi.NewRouter()
	models := "/api/model_catalog/v1/sources/{source_id}/models/"
	router.Get(models+"*", func(out http.ResponseWriter, asked *http.Request) {
		name := chi.URLParam(asked, "*")
		for _, ending := range []string{"/artifacts", "/artifacts/performance"} {
			if strings.HasSuffix(asked.URL.Path, ending) {
				answer(out, asked, strings.TrimSuffix(name, ending), true)
				return
			}
		}
		answer(out, asked, name, false)
	})
	for _, ending := range []string{"/artifacts", "/artifacts/performance"} {
		router.Get(models+"{model_name}"+ending, func(out http.ResponseWriter, asked *http.Request) {
			answer(out, asked, chi.URLParam(asked, "model_name"), true)
		})
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString(listener.Addr().String() + "\n")
	panic(http.Serve(listener, router))
}

func answer(out http.ResponseWriter, asked *http.Request, name string, artifacts bool) {
	if decoded, err := url.PathUnescape(name); err == nil {
		name = decoded
	}
	json.NewEncoder(out).Encode([]any{chi.URLParam(asked, "source_id"), name, artifacts})
}

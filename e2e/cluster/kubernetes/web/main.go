// Command web is what the tests of the cluster itself run in pods: a server on port 8080 that says which pod it is.
//
//	GET /             the pod's name
//	GET /lookup?name  the addresses that the cluster's DNS has for a name, one a line
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	http.HandleFunc("GET /{$}", func(answer http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(answer, os.Getenv("HOSTNAME"))
	})
	http.HandleFunc("GET /lookup", func(answer http.ResponseWriter, ask *http.Request) {
		within, done := context.WithTimeout(ask.Context(), 5*time.Second)
		defer done()
		addresses, err := net.DefaultResolver.LookupHost(within, ask.URL.RawQuery)
		if err != nil {
			http.Error(answer, err.Error(), http.StatusNotFound)
			return
		}
		for _, address := range addresses {
			fmt.Fprintln(answer, address)
		}
	})
	server := &http.Server{Addr: ":8080", ReadHeaderTimeout: 10 * time.Second}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	drained := make(chan struct{})
	go func() {
		<-signals
		within, done := context.WithTimeout(context.Background(), 5*time.Second)
		defer done()
		_ = server.Shutdown(within) // what is left after 5 s is cut off by the exit
		close(drained)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-drained
}

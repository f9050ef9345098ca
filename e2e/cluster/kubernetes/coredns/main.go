// Command coredns is CoreDNS with the plugins that a cluster's DNS needs. The stock program knows every cloud besides,
// and is half as large again.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

// The order in which a query passes them.
func init() {
	dnsserver.Directives = []string{"health", "ready", "errors", "cache", "loadbalance", "template", "kubernetes"}
}

func main() {
	coremain.Run()
}

//go:build tools

// Package tools pins etcd for the cluster tests.
package tools

import _ "go.etcd.io/etcd/server/v3"

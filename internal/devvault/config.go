package devvault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// ports are where a Vault listens on 127.0.0.1: for calls, and for the cluster that raft wants even for one node.
type ports struct {
	API     int `json:"api"`
	Cluster int `json:"cluster"`
}

// free tells whether both ports can be listened on now.
func (p ports) free() error {
	for _, port := range []int{p.API, p.Cluster} {
		l, err := net.Listen("tcp", address(port))
		if err != nil {
			return fmt.Errorf("port of the development Vault: %w", err)
		}
		if err := l.Close(); err != nil {
			return fmt.Errorf("port of the development Vault: %w", err)
		}
	}
	return nil
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// choosePorts returns the ports that dir remembers, or new ones where these are taken, which dir remembers then.
func choosePorts(dir string) (ports, error) {
	var p ports
	switch content, err := os.ReadFile(filepath.Join(dir, portsFile)); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return ports{}, fmt.Errorf("ports of the development Vault: %w", err)
	default:
		// Ports are no data worth refusing a start for: what does not read as ports is replaced.
		if json.Unmarshal(content, &p) == nil && p.valid() && p.free() == nil {
			return p, nil
		}
	}
	// Not a port that the system hands out (net.Listen on port 0): those belong to others as soon as this Vault is
	// down, and Restart wants the same one. They start at 32768 on Linux (ip_local_port_range) and 49152 elsewhere.
	const low, high = 10240, 32767
	for range 200 {
		p = ports{API: low + rand.IntN(high-low), Cluster: low + rand.IntN(high-low)}
		if p.valid() && p.free() == nil {
			content, err := json.Marshal(p)
			if err != nil {
				return ports{}, fmt.Errorf("ports of the development Vault: %w", err)
			}
			return p, writeFile(dir, portsFile, content)
		}
	}
	return ports{}, fmt.Errorf("no free ports on 127.0.0.1 between %d and %d", low, high)
}

func (p ports) valid() bool {
	ok := func(port int) bool { return port >= 1024 && port <= 65535 }
	return ok(p.API) && ok(p.Cluster) && p.API != p.Cluster
}

// isBao tells by its name whether a program is OpenBao's.
func isBao(bin string) bool { return strings.HasPrefix(filepath.Base(bin), "bao") }

// writeConfig writes Vault's configuration and returns its path. JSON is a form of HCL that needs no quoting rules.
func writeConfig(dir string, p ports, bao bool) (string, error) {
	config := map[string]any{
		"storage": map[string]any{"raft": map[string]any{
			"path":    filepath.Join(dir, raftDir),
			"node_id": "development",
			// The default of 5 is for slow networks and makes a restart wait some ten seconds for an election.
			"performance_multiplier": "1",
		}},
		"listener": []any{map[string]any{"tcp": map[string]any{
			"address":         address(p.API),
			"cluster_address": address(p.Cluster),
			"tls_cert_file":   filepath.Join(dir, certFile),
			"tls_key_file":    filepath.Join(dir, certKeyFile),
		}}},
		"api_addr":      "https://" + address(p.API),
		"cluster_addr":  "https://" + address(p.Cluster),
		"disable_mlock": true,
		"ui":            false,
		"log_level":     "warn",
		"telemetry":     map[string]any{"prometheus_retention_time": "0s", "disable_hostname": true},
	}
	if bao {
		// OpenBao takes an audit device over its API only with this. Vault would warn about an unknown field.
		config["unsafe_allow_api_audit_creation"] = true
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // HCL reads no \u003c
	enc.SetIndent("", "  ")
	if err := enc.Encode(config); err != nil {
		return "", fmt.Errorf("configuration of the development Vault: %w", err)
	}
	return filepath.Join(dir, configFile), writeFile(dir, configFile, buf.Bytes())
}

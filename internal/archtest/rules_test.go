// Package archtest keeps the import rules: which package may know which.
package archtest

// rule forbids imports. A package is named by its folder below the module's root, "./vault"; everything else by
// its import path. "x/..." means x and all below it. A rule for a package that does not exist yet matches nothing.
type rule struct {
	name string
	why  string

	in     []string // the packages bound by the rule
	except []string // of those, the ones that it leaves alone

	deny  []string // what they must not import
	allow []string // of that, what they may import all the same

	transitive bool // deny holds for whatever is reached through other packages of this module, too
	tests      bool // test files are bound as well
}

// inputOutput is what reaches a file, a socket, a database, another process or the log. Pure packages (net/url,
// net/netip, io) are not in it.
var inputOutput = []string{
	"os/...", "syscall/...", "golang.org/x/sys/...", "log/...", "embed", "plugin",
	"net", "net/http/...", "net/rpc/...", "net/smtp", "net/textproto", "crypto/tls", "database/...",
}

var rules = []rule{
	{
		name: "the domain knows nobody",
		why:  "vault is words and pure rules; adapters import vault, never the other way round",
		in:   []string{"./vault"},
		deny: []string{"./..."},
	},
	{
		name: "the domain does no input or output",
		why:  "the offline verifier replays these rules, so they may depend on nothing but their arguments",
		in:   []string{"./vault"},
		deny: inputOutput,
	},
	{
		name:   "operations stand alone",
		why:    "each family of operations works through its own small interfaces, so none of them can do another's part",
		in:     []string{"./vault/..."},
		except: []string{"./vault", "./vault/client/...", "./vault/wire", "./vault/vaulttest/...", "./vault/capture/...", "./vault/release/..."},
		deny:   []string{"./..."},
		allow:  []string{"./vault"},
	},
	{
		name:  "capture knows the domain, the sealed image and the image checks",
		why:   "it checks, seals and stores; an adapter here would give it powers that its interfaces do not name",
		in:    []string{"./vault/capture/..."},
		deny:  []string{"./..."},
		allow: []string{"./vault", "./vault/capture/...", "./internal/envelope", "./internal/imaging"},
	},
	{
		name:  "release knows the domain and the sealed image",
		why:   "it authorizes, opens and sends; an adapter here would give it powers that its interfaces do not name",
		in:    []string{"./vault/release/..."},
		deny:  []string{"./..."},
		allow: []string{"./vault", "./vault/release/...", "./internal/envelope"},
	},
	{
		name:       "release cannot mint",
		why:        "whoever takes over the release path must find no code there that makes grants, tokens or keys",
		in:         []string{"./vault/release/..."},
		deny:       []string{"./vault/grants/...", "./vault/breach/...", "./internal/hcvault/..."},
		transitive: true,
	},
	{
		name:       "capture cannot open",
		why:        "a capture system stores images and reads none, so nothing that opens or grants is within its reach",
		in:         []string{"./vault/capture/..."},
		deny:       []string{"./vault/release/...", "./vault/grants/..."},
		transitive: true,
	},
	{
		name:  "the sealed image and the image checks know only the domain",
		why:   "operations may import them because they are pure; whatever they imported would come along",
		in:    []string{"./internal/envelope/...", "./internal/imaging/..."},
		deny:  append([]string{"./..."}, inputOutput...),
		allow: []string{"./vault"},
	},
	{
		name: "adapters know the domain alone",
		why:  "they fit the interfaces of the operations by their methods; importing the operations would turn the arrow round",
		in: []string{
			"./internal/hcvault/...", "./internal/store/...", "./internal/blob/...", "./internal/gate/...", "./internal/identity/...",
		},
		deny:  []string{"./vault/...", "./internal/server/...", "./cmd/..."},
		allow: []string{"./vault"},
	},
	{
		name: "the verdict is independent",
		why:  "replay judges what the service did; sharing the service's code would share its mistakes",
		in:   []string{"./internal/replay/..."},
		deny: []string{
			"./vault/...", "./internal/server/...", "./internal/store/...", "./internal/hcvault/...", "./internal/gate/...",
		},
		allow:      []string{"./vault"},
		transitive: true,
	},
	{
		name:   "only the server knows gRPC status",
		why:    "one place turns an error into a status, so no cause leaks and no code is chosen twice",
		in:     []string{"./..."},
		except: []string{"./internal/server/...", "./vault/client/...", "./cmd/...", "./proto/..."},
		deny:   []string{"google.golang.org/grpc/status", "google.golang.org/grpc/codes"},
	},
	{
		name:  "identity knows of gRPC only credentials and peer",
		why:   "it says who is calling on which connection, and nothing of what the call is about",
		in:    []string{"./internal/identity/..."},
		deny:  []string{"google.golang.org/grpc/..."},
		allow: []string{"google.golang.org/grpc/credentials/...", "google.golang.org/grpc/peer"},
	},
	{
		name:   "only hcvault talks to HashiCorp Vault",
		why:    "its retries, time limits and pool are set in one place, and its errors are translated there",
		in:     []string{"./..."},
		except: []string{"./internal/hcvault/..."},
		deny:   []string{"github.com/hashicorp/vault/api/..."},
	},
	{
		name:  "nothing of HashiCorp Vault itself is linked",
		why:   "it is a separate program under its own licence; only its API client belongs in our go.mod",
		in:    []string{"./..."},
		deny:  []string{"github.com/hashicorp/vault/...", "github.com/openbao/openbao/..."},
		allow: []string{"github.com/hashicorp/vault/api/..."},
		tests: true,
	},
	{
		name:   "the API's messages stay at the edge",
		why:    "the inside speaks the domain's words, so a change of the API cannot change a rule",
		in:     []string{"./..."},
		except: []string{"./internal/server/...", "./vault/wire", "./vault/client/...", "./cmd/...", "./proto/..."},
		deny:   []string{"./proto/..."},
	},
	{
		name:  "wire only translates",
		why:   "service and clients share it, so it may know the domain's words and the API's messages alone",
		in:    []string{"./vault/wire"},
		deny:  append([]string{"./..."}, inputOutput...),
		allow: []string{"./vault", "./proto/..."},
	},
	{
		name: "the log's tree knows nobody",
		why:  "who checks an export must not need, or trust, anything of the service",
		in:   []string{"./internal/tlog/..."},
		deny: []string{"./...", "net", "net/http/...", "database/...", "crypto/tls"},
	},
	{
		name:       "the SDK is public",
		why:        "contractors and capture systems build against it, so it may need nothing of the service; whoever checks the log needs its rules",
		in:         []string{"./vault/client/..."},
		deny:       []string{"./internal/...", "./cmd/..."},
		allow:      []string{"./internal/tlog"},
		transitive: true,
	},
	{
		name:   "test code does not ship",
		why:    "package testing registers flags in every binary that links it, and fakes have no place in a daemon",
		in:     []string{"./..."},
		except: []string{"./vault/vaulttest/...", "./internal/crashfs"},
		deny:   []string{"testing/...", "./vault/vaulttest/...", "./internal/crashfs"},
	},
}

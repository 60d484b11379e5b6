package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// unknownKeys says of keys in a file that are no settings, and which were meant.
func unknownKeys(path string, keys []string) error {
	var errs []error
	for _, k := range keys {
		if !isSetting(k) {
			errs = append(errs, fmt.Errorf("configuration %s: there is no setting %q%s", path, k, meant(k, func(s string) string { return s })))
		}
	}
	return errors.Join(errs...)
}

// unknownVariables does the same of the environment.
func unknownVariables(environ []string) error {
	var errs []error
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, envPrefix) && !isSetting(envKey(name)) {
			errs = append(errs, fmt.Errorf("environment: %s: there is no such setting%s", name, meant(envKey(name), envName)))
		}
	}
	return errors.Join(errs...)
}

// flagError adds to a flag that does not exist those that come near it.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || len(unknown.GetSpecifiedName()) < 2 {
		return err
	}
	return fmt.Errorf("%w%s", err, nearest(unknown.GetSpecifiedName(), func(yield func(string)) {
		c.Flags().VisitAll(func(f *pflag.Flag) { yield(f.Name) })
	}, func(s string) string { return "--" + s }))
}

func isSetting(key string) bool {
	return slices.ContainsFunc(settings, func(s setting) bool { return s.key == key })
}

// meant names the settings that come near a key that is none, as they are written there.
func meant(key string, written func(string) string) string {
	return nearest(key, func(yield func(string)) {
		for _, s := range settings {
			yield(s.key)
		}
	}, written)
}

// nearest names what comes within two letters of name, if anything does. What stands between
// words counts for nothing: tls_key is as good as tls.key.
func nearest(name string, all func(yield func(string)), written func(string) string) string {
	bare := strings.NewReplacer(".", "", "_", "", "-", "").Replace
	best := 3
	var near []string
	all(func(s string) {
		switch d := levenshtein.ComputeDistance(bare(name), bare(s)); {
		case d < best:
			best, near = d, []string{written(s)}
		case d == best && best < 3:
			near = append(near, written(s))
		}
	})
	if len(near) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(near, " or ") + "?"
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU times in /proc: USER_HZ, which is 100 (proc(5), time(7)).
const tick = 10 * time.Millisecond

// usage is CPU time, as /proc has it; known is false where there is no such thing.
type usage struct {
	known                 bool
	bench, daemon, vault  time.Duration
	kernel                time.Duration // the part of daemon that is spent in the kernel: sockets, files
	busy, waiting, passed time.Duration // of the whole machine: at work, idle with I/O under way, and all, summed over cores
}

// total is known only if all of it is.
func total(all []usage) usage {
	sum := usage{known: true}
	for _, u := range all {
		sum = sum.add(u, 1)
	}
	return sum
}

func (u usage) minus(v usage) usage { return u.add(v, -1) }

func (u usage) add(v usage, sign time.Duration) usage {
	return usage{
		known: u.known && v.known,
		bench: u.bench + sign*v.bench, daemon: u.daemon + sign*v.daemon, vault: u.vault + sign*v.vault, kernel: u.kernel + sign*v.kernel,
		busy: u.busy + sign*v.busy, waiting: u.waiting + sign*v.waiting, passed: u.passed + sign*v.passed,
	}
}

// meter reads the CPU times of this process, the daemon and its Vault.
type meter struct{ daemon, vault int }

// newMeter finds the daemon's Vault, which is its only child.
func newMeter(daemon int) meter {
	m := meter{daemon: daemon}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return m
	}
	for _, file := range stats {
		fields, err := statFields(file)
		if err != nil {
			continue // it ended meanwhile
		}
		if parent, err := strconv.Atoi(fields[1]); err == nil && parent == daemon {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				m.vault = pid
			}
		}
	}
	return m
}

// read gives the times since each process, and the machine, began.
func (m meter) read() usage {
	var u usage
	var errs [4]error
	u.bench, _, errs[0] = processTime(os.Getpid())
	u.daemon, u.kernel, errs[1] = processTime(m.daemon)
	u.vault, _, errs[2] = processTime(m.vault)
	u.busy, u.waiting, u.passed, errs[3] = machineTime("/proc/stat")
	u.known = errors.Join(errs[:]...) == nil
	return u
}

// statFields gives the fields of a process' stat file from the third (state) on: the second
// holds the program's name, which may hold anything.
func statFields(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return nil, fmt.Errorf("%s is not as it should be", file)
	}
	return fields, nil
}

// processTime gives the time of all threads, and the kernel's part of it: fields 14 (user)
// and 15 (system) of proc_pid_stat(5).
func processTime(pid int) (all, kernel time.Duration, err error) {
	fields, err := statFields(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, time.Duration(system) * tick, errors.Join(err1, err2)
}

// machineTime reads the first line of proc_stat(5): user, nice, system, idle, iowait, irq,
// softirq, steal (further fields are within user and nice).
func machineTime(file string) (busy, waiting, passed time.Duration, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, 0, 0, fmt.Errorf("%s is not as it should be", file)
	}
	for i, f := range fields[1:9] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, 0, 0, err
		}
		d := time.Duration(n) * tick
		switch passed += d; i {
		case 3:
		case 4:
			waiting = d
		default:
			busy += d
		}
	}
	return busy, waiting, passed, nil
}

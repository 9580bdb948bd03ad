package main

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// print prints the medians of all rounds, as a table of Markdown.
func (b *bench) print(tasks []*task, seen map[*task][]sampleOf, second []float64) {
	fmt.Fprintf(b.stdout, "%d rounds, %d CPUs; two goroutines got %.2f times the work of one done (median; %.2f to %.2f).\n",
		len(second), runtime.NumCPU(), median(second), slices.Min(second), slices.Max(second))
	bases := make(map[string]sampleOf)
	for _, t := range tasks {
		if t.base {
			bases[t.group] = medians(seen[t])
		}
	}
	tasks = slices.Clone(tasks)
	order := slices.Clone(tasks)
	slices.SortStableFunc(tasks, func(a, b *task) int { return cmp.Compare(firstOf(order, a.group), firstOf(order, b.group)) })
	group := ""
	for _, t := range tasks {
		if t.group != group {
			group = t.group
			fmt.Fprintf(b.stdout, "\n%-40s | time s | ratio | CPU s | ratio | size MB | ratio | peak MiB\n", group)
			fmt.Fprintf(b.stdout, ":%s | --: | --: | --: | --: | --: | --: | --:\n", strings.Repeat("-", 39))
		}
		s, base := medians(seen[t]), bases[group]
		size, sizeRatio := "", ""
		if s.size > 0 {
			size, sizeRatio = fmt.Sprintf("%.1f", float64(s.size)/1e6), ratio(s.size, base.size)
		}
		fmt.Fprintf(b.stdout, "%-40s | %.3f | %s | %.3f | %s | %s | %s | %d\n", strings.ReplaceAll(t.name, "|", `\|`), s.wall.Seconds(),
			ratio(s.wall, base.wall), s.cpu.Seconds(), ratio(s.cpu, base.cpu), size, sizeRatio, s.peakBytes>>20)
	}
}

// firstOf returns where a group begins.
func firstOf(tasks []*task, group string) int {
	return slices.IndexFunc(tasks, func(t *task) bool { return t.group == group })
}

func ratio[T ~int64](a, b T) string {
	if b == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", float64(a)/float64(b))
}

// medians takes the median of each figure by itself.
func medians(samples []sampleOf) sampleOf {
	of := func(get func(sampleOf) int64) int64 {
		var all []int64
		for _, s := range samples {
			all = append(all, get(s))
		}
		return median(all)
	}
	return sampleOf{
		wall:      time.Duration(of(func(s sampleOf) int64 { return int64(s.wall) })),
		cpu:       time.Duration(of(func(s sampleOf) int64 { return int64(s.cpu) })),
		peakBytes: of(func(s sampleOf) int64 { return s.peakBytes }),
		size:      of(func(s sampleOf) int64 { return s.size }),
	}
}

func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)-1)/2]
}

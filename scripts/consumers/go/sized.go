// The generator of sized cases (golden/README.md) in Go: words, tensors, probes and signs.
//
//	go run sized.go words SEED NAME FIRST COUNT
//	go run sized.go tensor PROFILE SEED NAME ROWS COLUMNS [BELOW]
//	go run sized.go probes SEED NAME LENGTH...
//	go run sized.go signs SEED NAME COUNT
package main

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"strconv"
)

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

func stream(seed uint64, name string) uint64 {
	h := uint64(0xCBF29CE484222325)
	for i := 0; i < len(name); i++ {
		h = (h ^ uint64(name[i])) * 0x100000001B3
	}
	return mix(seed + h)
}

func word(s, i uint64) uint64 { return mix(s + (i+1)*0x9E3779B97F4A7C15) }

func below(w, n uint64) uint64 { return (w >> 32) * n >> 32 }

// A number from its word, the word of its row, its column and the length of the row.
func number(profile string, w, row, column, n uint64) float64 {
	sixes := float64(w>>58+w>>52&63+w>>46&63+w>>40&63) - 126
	top, sign := w>>57, 1.0
	if w&1 == 1 {
		sign = -1
	}
	switch {
	case profile == "positive":
		return math.Ldexp(float64(top)+1, -6)
	case profile == "peaked" && w&15 == 0:
		return math.Ldexp(sixes, -1)
	case profile == "offset":
		return math.Ldexp(248+float64(w>>61), -5)
	case profile == "low":
		return -math.Ldexp(248+float64(w>>61), 2)
	case profile == "wide":
		return sign * math.Ldexp(128+float64(top), int(w>>8&15)-15)
	case profile == "subnormal":
		return sign * math.Ldexp(float64(top|1), -133)
	case profile == "masked" && (w&3 == 0 || row&3 == 0):
		return math.Inf(-1)
	case profile == "outlier" && below(row, n) == column:
		return 1020 - 2040*float64(row&1)
	}
	return math.Ldexp(sixes, -5) // normal
}

// Of probe j along an axis of n.
func coordinate(w, j, n uint64) uint64 {
	tile := uint64(1024)
	if w&3 < 3 {
		tile = 32 << (w & 3)
	}
	if j < 8 {
		return (w & 1) * (n - 1)
	}
	if j >= 32 {
		return below(w, n)
	}
	border := tile * below(w, n/tile+1)
	if border > 0 {
		border -= w >> 2 & 1
	}
	if border >= n {
		return n - 1
	}
	return border
}

func main() {
	arguments, out := os.Args[1:], bufio.NewWriter(os.Stdout)
	defer out.Flush()
	whole := func(i int) uint64 {
		n, err := strconv.ParseUint(arguments[i], 10, 64)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		return n
	}
	what := ""
	if len(arguments) > 3 {
		what = arguments[0]
	}
	switch what {
	case "words":
		s := stream(whole(1), arguments[2])
		for i := uint64(0); i < whole(4); i++ {
			fmt.Fprintf(out, "%016x\n", word(s, whole(3)+i))
		}
	case "tensor":
		s, rows, n := stream(whole(2), arguments[3]), whole(4), whole(5)
		for i := uint64(0); i < rows*n; i++ {
			w, row := word(s, i), word(s, rows*n+i/n)
			if len(arguments) == 7 {
				fmt.Fprintln(out, below(w, whole(6)))
			} else {
				fmt.Fprintln(out, strconv.FormatFloat(number(arguments[1], w, row, i%n, n), 'g', -1, 64))
			}
		}
	case "probes":
		s := stream(whole(1), "probes."+arguments[2])
		for j := uint64(0); j < 64; j++ {
			place := uint64(0)
			for a := 3; a < len(arguments); a++ {
				place = place*whole(a) + coordinate(word(s, 8*j+uint64(a-3)), j, whole(a))
			}
			fmt.Fprintln(out, place)
		}
	case "signs":
		s := stream(whole(1), "signs."+arguments[2])
		for i := uint64(0); i < whole(3); i++ {
			fmt.Fprintln(out, 1-2*int(word(s, i)>>63))
		}
	default:
		fmt.Fprintln(os.Stderr, "usage: sized words | tensor | probes | signs ..., as the first lines of sized.go say")
		os.Exit(2)
	}
}

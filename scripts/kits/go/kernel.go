// Softmax, layer norm and attention with their gradients, for `refllm verify --serve`. Put yours in their place.
//
// An operation is given its arrays and keywords; it returns its outputs and, where d has the gradients of these, those
// of its inputs. Below them stands all that the verifier needs: frames over standard input and output.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
)

type array struct {
	shape []int
	data  []float64
}

type arrays map[string]*array

type call struct {
	in, d    arrays // d is empty where no gradient is asked for
	keywords map[string]any
}

func zeros(shape ...int) *array { return &array{shape, make([]float64, product(shape))} }

func product(shape []int) int {
	n := 1
	for _, size := range shape {
		n *= size
	}
	return n
}

// The size of an axis, counted from the last one.
func (x *array) last(fromTheEnd int) int { return x.shape[len(x.shape)-fromTheEnd] }

func (x *array) rows(width int, each func(at int)) {
	for at := 0; width > 0 && at < len(x.data); at += width {
		each(at)
	}
}

// A row of only -infinity gives zeros.
func softmaxRow(x, y []float64) {
	most, sum := math.Inf(-1), 0.0
	for _, v := range x {
		if v > most || math.IsNaN(v) {
			most = v
		}
	}
	for i, v := range x {
		y[i] = 0
		if !math.IsInf(most, -1) {
			y[i] = math.Exp(v - most)
		}
		sum += y[i]
	}
	for i := range y {
		if sum != 0 {
			y[i] /= sum
		}
	}
}

func softmaxRowBack(y, dy, dx []float64) {
	along := 0.0
	for i := range y {
		along += y[i] * dy[i]
	}
	for i := range y {
		dx[i] = y[i] * (dy[i] - along)
	}
}

func softmax(c call) (arrays, arrays) {
	x := c.in["x"]
	N, y, dx := x.last(1), zeros(x.shape...), zeros(x.shape...)
	x.rows(N, func(at int) {
		softmaxRow(x.data[at:at+N], y.data[at:at+N])
		if dy := c.d["y"]; dy != nil {
			softmaxRowBack(y.data[at:at+N], dy.data[at:at+N], dx.data[at:at+N])
		}
	})
	return arrays{"y": y}, arrays{"x": dx}
}

func layerNorm(c call) (arrays, arrays) {
	x, g, b, eps := c.in["x"], c.in["g"], c.in["b"], c.keywords["eps"].(float64)
	y, dx, dg, db, C := zeros(x.shape...), zeros(x.shape...), zeros(g.shape...), zeros(b.shape...), x.last(1)
	count, n, dn := float64(C), make([]float64, C), make([]float64, C)
	x.rows(C, func(at int) {
		mean, variance := 0.0, 0.0
		for i := 0; i < C; i++ {
			mean += x.data[at+i] / count
		}
		for i := 0; i < C; i++ {
			n[i] = x.data[at+i] - mean
			variance += n[i] * n[i] / count
		}
		r := 1 / math.Sqrt(variance+eps)
		for i := 0; i < C; i++ {
			n[i] *= r
			y.data[at+i] = n[i]*g.data[i] + b.data[i]
		}
		dy := c.d["y"]
		if dy == nil {
			return
		}
		meanOf, along := 0.0, 0.0
		for i := 0; i < C; i++ {
			dn[i] = dy.data[at+i] * g.data[i]
			meanOf += dn[i] / count
			along += dn[i] * n[i] / count
			dg.data[i] += dy.data[at+i] * n[i]
			db.data[i] += dy.data[at+i]
		}
		for i := 0; i < C; i++ {
			dx.data[at+i] = r * (dn[i] - meanOf - n[i]*along)
		}
	})
	return arrays{"y": y}, arrays{"x": dx, "g": dg, "b": db}
}

func attention(c call) (arrays, arrays) {
	q, k, v, causal := c.in["q"], c.in["k"], c.in["v"], c.keywords["causal"].(bool)
	allowed, _ := c.keywords["allowed"].(*array)
	T, D, S, E, lead := q.last(2), q.last(1), k.last(2), v.last(1), q.shape[:len(q.shape)-2]
	y := zeros(append(append([]int{}, lead...), T, E)...)
	dq, dk, dv, dy := zeros(q.shape...), zeros(k.shape...), zeros(v.shape...), c.d["y"]
	s, P, dP, ds, scale := make([]float64, S), make([]float64, S), make([]float64, S), make([]float64, S), 1/math.Sqrt(float64(D))
	for n := 0; n < product(lead); n++ {
		for t := 0; t < T; t++ {
			Q, Y := (n*T+t)*D, (n*T+t)*E
			for j := 0; j < S; j++ {
				s[j] = math.Inf(-1)
				if causal && j > t+S-T || allowed != nil && !mayAttend(allowed, lead, n, t, j) {
					continue
				}
				s[j] = 0
				for i := 0; i < D; i++ {
					s[j] += q.data[Q+i] * k.data[(n*S+j)*D+i] * scale
				}
			}
			softmaxRow(s, P)
			for j := 0; j < S; j++ {
				dP[j] = 0
				for e := 0; e < E; e++ {
					y.data[Y+e] += P[j] * v.data[(n*S+j)*E+e]
					if dy != nil {
						dP[j] += dy.data[Y+e] * v.data[(n*S+j)*E+e]
						dv.data[(n*S+j)*E+e] += P[j] * dy.data[Y+e]
					}
				}
			}
			softmaxRowBack(P, dP, ds)
			for j := 0; j < S; j++ {
				for i := 0; i < D; i++ {
					dq.data[Q+i] += ds[j] * k.data[(n*S+j)*D+i] * scale
					dk.data[(n*S+j)*D+i] += ds[j] * q.data[Q+i] * scale
				}
			}
		}
	}
	return arrays{"y": y}, arrays{"q": dq, "k": dk, "v": dv}
}

// Whether query t of batch n may attend key j: the leading axes of the mask may be fewer, or of size 1.
func mayAttend(mask *array, lead []int, n, t, j int) bool {
	places := make([]int, len(lead)+2)
	places[len(lead)], places[len(lead)+1] = t, j
	for a := len(lead) - 1; a >= 0; a-- {
		places[a] = n % lead[a]
		n /= lead[a]
	}
	at := 0
	for a, place := range places[len(places)-len(mask.shape):] {
		at *= mask.shape[a]
		if mask.shape[a] > 1 {
			at += place
		}
	}
	return mask.data[at] != 0
}

var operations = map[string]func(call) (arrays, arrays){
	"softmax": softmax, "layer_norm": layerNorm, "attention": attention,
}

// --- frames: two lengths of eight bytes, a JSON object, and the bytes of its tensors --------------------------------

type tensor struct {
	Dtype string `json:"dtype"`
	Shape []int  `json:"shape"`
	At    int    `json:"at"`
}

type question struct {
	ID         string                     `json:"id"`
	Operation  string                     `json:"operation"`
	Dtype      string                     `json:"dtype"`
	Inputs     map[string]json.RawMessage `json:"inputs"`
	Keywords   map[string]json.RawMessage `json:"keywords"`
	Cotangents map[string]json.RawMessage `json:"cotangents"`
}

func numbers(x tensor, data []byte) (*array, error) {
	found := zeros(x.Shape...)
	width := map[string]int{"float64": 8, "float32": 4, "int64": 8, "bool": 1}[x.Dtype]
	if width == 0 {
		return nil, errors.New("no arrays of " + x.Dtype)
	}
	for i := range found.data {
		b := data[x.At+i*width:]
		switch x.Dtype {
		case "float64":
			found.data[i] = math.Float64frombits(binary.LittleEndian.Uint64(b))
		case "float32":
			found.data[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
		case "int64":
			found.data[i] = float64(int64(binary.LittleEndian.Uint64(b)))
		default:
			found.data[i] = float64(b[0])
		}
	}
	return found, nil
}

// The arrays of a group, and what is none.
func read(group map[string]json.RawMessage, data []byte) (arrays, map[string]any, error) {
	found, all := arrays{}, map[string]any{}
	for name, text := range group {
		var x tensor
		if json.Unmarshal(text, &x) == nil && x.Dtype != "" {
			a, err := numbers(x, data)
			if err != nil {
				return nil, nil, err
			}
			found[name], all[name] = a, a
			continue
		}
		var value any
		if err := json.Unmarshal(text, &value); err != nil {
			return nil, nil, err
		}
		all[name] = value
	}
	return found, all, nil
}

func answer(asked question, data []byte) (map[string]any, []byte) {
	said := map[string]any{"id": asked.ID}
	operation := operations[asked.Operation]
	if operation == nil {
		said["skip"] = "no function"
		return said, nil
	}
	if asked.Dtype != "float64" && asked.Dtype != "float32" {
		said["skip"] = "no " + asked.Dtype
		return said, nil
	}
	in, _, errIn := read(asked.Inputs, data)
	_, keywords, errKeywords := read(asked.Keywords, data)
	d, _, errD := read(asked.Cotangents, data)
	for _, err := range []error{errIn, errKeywords, errD} {
		if err != nil {
			said["error"] = err.Error()
			return said, nil
		}
	}
	outputs, gradients := operation(call{in, d, keywords})
	if len(d) == 0 {
		gradients = nil
	}
	sent := []byte{}
	for group, held := range map[string]arrays{"outputs": outputs, "gradients": gradients} {
		entries := map[string]tensor{}
		for name, x := range held {
			entries[name] = tensor{asked.Dtype, x.shape, len(sent)}
			for _, v := range x.data {
				if asked.Dtype == "float64" {
					sent = binary.LittleEndian.AppendUint64(sent, math.Float64bits(v))
				} else {
					sent = binary.LittleEndian.AppendUint32(sent, math.Float32bits(float32(v)))
				}
			}
		}
		said[group] = entries
	}
	return said, sent
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	for {
		var lengths [16]byte
		if _, err := io.ReadFull(in, lengths[:]); err == io.EOF {
			return // the end of the questions
		}
		text := make([]byte, binary.LittleEndian.Uint64(lengths[:8]))
		data := make([]byte, binary.LittleEndian.Uint64(lengths[8:]))
		_, err := io.ReadFull(in, text)
		must(err)
		_, err = io.ReadFull(in, data)
		must(err)
		var asked question
		must(json.Unmarshal(text, &asked))
		said, sent := answer(asked, data)
		text, err = json.Marshal(said)
		must(err)
		binary.LittleEndian.PutUint64(lengths[:8], uint64(len(text)))
		binary.LittleEndian.PutUint64(lengths[8:], uint64(len(sent)))
		for _, part := range [][]byte{lengths[:], text, sent} {
			_, err = out.Write(part)
			must(err)
		}
		must(out.Flush())
	}
}

// Package vectors holds the golden files of language models: inputs, exact answers, gradients and tolerances.
//
// golden/README.md says what a case is and how near is near enough.
package vectors

import (
	"embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
)

// Version is that of the vectors, SpecVersion that of what they say, Format that of the files.
const (
	Version     = "$version"
	SpecVersion = "$spec_version"
	Format      = $format
)

//go:embed golden
var embedded embed.FS

// Files is the folder of the golden files.
var Files = sub()

func sub() fs.FS {
	found, err := fs.Sub(embedded, "golden")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	return found
}

// Entry is a file as the manifest lists it.
type Entry struct {
	Path   string `json:"path"`
	Level  int    `json:"level"`
	SHA256 string `json:"sha256"`
	Bytes  int    `json:"bytes"`
	Cases  int    `json:"cases"`
}

// Manifest lists every file.
type Manifest struct {
	Format      int     `json:"format"`
	SpecVersion string  `json:"spec_version"`
	License     string  `json:"license"`
	Files       []Entry `json:"files"`
	Cases       int     `json:"cases"`
	Calibration struct {
		C float64 `json:"C"`
	} `json:"calibration"`
}

// Case is what every case has; Record is all of it, as JSON.
type Case struct {
	ID        string   `json:"id"`
	Spec      string   `json:"spec"`
	Section   string   `json:"section"`
	Operation string   `json:"operation"`
	Level     int      `json:"level"`
	About     string   `json:"about"`
	Order     []string `json:"order"`
	Record    json.RawMessage
}

// UnmarshalJSON keeps the record beside what is read of it.
func (c *Case) UnmarshalJSON(text []byte) error {
	type plain Case
	if err := json.Unmarshal(text, (*plain)(c)); err != nil {
		return err
	}
	c.Record = append(json.RawMessage(nil), text...)
	return nil
}

// Tensor is a tensor of a safetensors file; Data holds its numbers as they stand there, little-endian and row-major.
type Tensor struct {
	DType   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets [2]int `json:"data_offsets"`
	Data    []byte `json:"-"`
}

// ReadManifest reads MANIFEST.json.
func ReadManifest() (Manifest, error) {
	var found Manifest
	return found, read("MANIFEST.json", &found)
}

// Cases reads a file of cases, such as "L1/softmax.json".
func Cases(path string) ([]Case, error) {
	var found struct {
		Cases []Case `json:"cases"`
	}
	err := read(path, &found)
	return found.Cases, err
}

// Tensors reads the tensors beside a file of cases; at level 1 there are none.
func Tensors(path string) (map[string]Tensor, error) {
	if _, err := fs.Stat(Files, path); err != nil {
		return nil, err
	}
	content, err := fs.ReadFile(Files, strings.TrimSuffix(path, ".json")+".safetensors")
	if err != nil {
		return map[string]Tensor{}, nil
	}
	if len(content) < 8 || binary.LittleEndian.Uint64(content) > uint64(len(content)-8) {
		return nil, fmt.Errorf("%s: the file beside it is cut off", path)
	}
	start := 8 + int(binary.LittleEndian.Uint64(content))
	found := map[string]Tensor{}
	if err := json.Unmarshal(content[8:start], &found); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for name, tensor := range found {
		tensor.Data = content[start+tensor.Offsets[0] : start+tensor.Offsets[1]]
		found[name] = tensor
	}
	return found, nil
}

func read(path string, into interface{}) error {
	content, err := fs.ReadFile(Files, path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

package main

import (
	"context"
	"fmt"
	"os"

	"voltar/internal/lab"
)

func main() {
	script, _ := os.ReadFile(os.Args[1])
	layers, err := lab.Debs(context.Background(), "exim4-daemon-light")
	if err != nil {
		panic(err)
	}
	fmt.Println(lab.Run(context.Background(), lab.Machine{Script: string(script), Stdout: os.Stdout, Systemd: true, Share: "/tmp/share", Layers: layers, MemoryBytes: 3 << 30}))
}

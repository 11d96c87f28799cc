// Command pitr is continuous archiving and point-in-time recovery for
// PostgreSQL: one binary with many names. See package multicall.
package main

import (
	"os"

	"pitr/multicall"
)

func main() {
	os.Exit(multicall.Main(os.Args))
}

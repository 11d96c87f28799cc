package multicall

import (
	"os"
	"strings"
	"testing"
)

func TestEverySettingIsDocumentedWithItsDefault(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range settings() {
		want := "| `" + s.key + "` | "
		if s.def != "" {
			want += "`" + s.def + "` "
		}
		if !strings.Contains(string(text), "\n"+want+"|") {
			t.Errorf("docs/configuration.md has no line that begins with %q", want+"|")
		}
	}
}

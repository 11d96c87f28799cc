package multicall

import "strings"

// nearest is the known word that s was probably meant to be, or "".
func nearest(s string, known []string) string {
	best, least := "", len(s)/3+2
	for _, k := range known {
		if d := distance(s, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// didYouMean is the hint about an unknown word.
func didYouMean(s string, known []string) string {
	if near := nearest(s, known); near != "" {
		return `did you mean "` + near + `"?`
	}
	return "known are: " + strings.Join(known, ", ")
}

// distance is Levenshtein's: how many bytes must be put in, taken out or
// changed. Long words are not worth the work.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b))
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

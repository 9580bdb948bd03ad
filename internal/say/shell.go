package say

import "strings"

// ShellWord makes one word of a text for a POSIX shell.
func ShellWord(text string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-"
	if text != "" && strings.Trim(text, plain) == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// ShellWords makes a command line of words for a POSIX shell.
func ShellWords(words []string) string {
	return strings.Join(Names(words, ShellWord), " ")
}

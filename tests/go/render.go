// Command render renders chat templates with Go's own text/template, as Ollama does, for the tests.
//
// Each line that it reads is a JSON object {"template": "...", "messages": [{"role", "content"}]};
// each line that it writes is {"text": "..."}, or {"error": "..."} where Go refuses the template.
// Only the standard library is used.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/template"
)

// Message is a turn of a conversation. Templates name its fields.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type request struct {
	Template string    `json:"template"`
	Messages []Message `json:"messages"`
}

type reply struct {
	Text  string `json:"text"`
	Error string `json:"error,omitempty"`
}

// collated returns the text of all system messages, joined by blank lines, and the conversation in
// which neighbours of one role have become one message in the same way. Tool messages stay apart:
// each answers a call of its own.
func collated(messages []Message) (string, []Message) {
	var system []string
	var turns []Message
	for _, message := range messages {
		if message.Role == "system" {
			system = append(system, message.Content)
		}
		last := len(turns) - 1
		if last >= 0 && turns[last].Role == message.Role && message.Role != "tool" {
			turns[last].Content += "\n\n" + message.Content
		} else {
			turns = append(turns, message)
		}
	}
	return strings.Join(system, "\n\n"), turns
}

// rendered returns the template's text for the conversation.
func rendered(parsed *template.Template, messages []Message) (string, error) {
	system, turns := collated(messages)
	var text strings.Builder
	err := parsed.Execute(&text, map[string]any{"System": system, "Messages": turns})
	return text.String(), err
}

// parsedTemplate parses a template. A field that the data lack is an error, not "<no value>".
func parsedTemplate(source string) (*template.Template, error) {
	return template.New("").Option("missingkey=error").Parse(source)
}

// run answers every line of standard input. One template is parsed once for all lines in a row.
func run() error {
	input := json.NewDecoder(bufio.NewReader(os.Stdin))
	buffered := bufio.NewWriter(os.Stdout)
	defer buffered.Flush()
	output := json.NewEncoder(buffered)
	var source string
	var parsed *template.Template
	for input.More() {
		var asked request
		if err := input.Decode(&asked); err != nil {
			return err
		}
		var err error
		if parsed == nil || asked.Template != source {
			source = asked.Template
			parsed, err = parsedTemplate(source)
		}
		var answer reply
		if err == nil {
			answer.Text, err = rendered(parsed, asked.Messages)
		}
		if err != nil {
			answer = reply{Error: err.Error()}
			parsed = nil
		}
		if err := output.Encode(answer); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

package report

// HTML renders a run as one self-contained page.
func HTML(run Run, opts Options) (string, error) { return "<pre>stub", nil }

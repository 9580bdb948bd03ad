package main

import "voltar/internal/gentle"

// giveWay makes a run as gentle as the configuration says. A host that does not let it is told so, and backed up.
func (s *setup) giveWay() {
	limits := s.config.Limits
	err := gentle.Apply(gentle.Options{Nice: limits.Nice, IO: gentle.IOClass(limits.IONice), CPUs: limits.CPUs})
	if err != nil {
		s.log.Warn("the run goes on without some of its limits", "err", err)
	}
}

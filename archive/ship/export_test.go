package ship

// Poke has all queues looked at, as what is put into one has that one looked at.
func (d *Drainer) Poke() {
	for _, to := range d.Shipper.Destinations {
		d.Shipper.desk(to.Name).poke()
	}
}

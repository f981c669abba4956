"""The same bookings through ours and its peers, at a provider that loses answers, while a worker is killed."""

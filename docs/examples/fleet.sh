# Where `provisioner init` put the first admin's credentials; the server's reflection tells grpcurl the messages.
ADMIN=/var/lib/bedplate/provisioner/admin
call() {
  grpcurl -cacert "$ADMIN/ca.pem" -cert "$ADMIN/cert.pem" -key "$ADMIN/key.pem" -d "$2" \
    provisioner.example:7443 "bedplate.v1.Fleet/$1"
}

# Which machines are silent, and why.
call ListMachines '{"filter": "phase=silent", "page_size": 1000}'

# A join token for a rack of 16, good for an hour.
call CreateToken '{"request_id": "'"$(uuidgen)"'", "ttl": "3600s", "uses_allowed": 16}'

# Machines as they change, from revision 120 on: the last one that was seen.
call WatchMachines '{"from_revision": "120"}'

#!/usr/bin/env bash
# Makes a development CA and what it signs. For trying things out and for tests; not for production.
#
#   certs/gen.sh [--client NAME] [--token-key] [DIR [NAME...]]
#
# DIR (default: certs/dev) gets ca.pem, ca.key, server.pem and server.key. The server certificate is valid for each NAME
# (DNS name or IPv4 address), localhost and 127.0.0.1. `--client NAME` adds client.pem and client.key, for listeners with
# `client_ca` and for replicas that ask for a certificate. `--token-key` adds token.key, a key for `tokens.signing_key`.
#
# Run again it changes nothing, unless a certificate ends within 30 days or was made for other names: then that one is
# made anew, by the same CA. Keys are P-256 and 0600.
set -euo pipefail
umask 077

readonly CA_DAYS=3650
readonly LEAF_DAYS=825 # the longest life that Apple's verifiers accept, also of private CAs
readonly RENEW_SECONDS=$((30 * 24 * 3600))

main() {
  local client="" token_key=""
  while [[ "${1:-}" == --* ]]; do
    case "$1" in
      --client) client="${2:?--client needs a NAME}"; shift 2 ;;
      --token-key) token_key=yes; shift ;;
      *) usage ;;
    esac
  done
  local dir="${1:-$(dirname "${BASH_SOURCE[0]}")/dev}"
  shift || true
  command -v openssl >/dev/null || { echo "certs/gen.sh: openssl is not installed" >&2; exit 1; }

  mkdir -p "$dir"
  cd "$dir"
  make_ca
  make_leaf server serverAuth "$(subject_alt_names "$@" localhost 127.0.0.1)"
  if [[ -n "$client" ]]; then make_leaf client clientAuth "$(subject_alt_names "$client")"; fi
  if [[ -n "$token_key" && ! -s token.key ]]; then make_key token.key; fi
}

usage() {
  sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}

make_ca() {
  if valid ca && [[ -s ca.key ]]; then return; fi
  make_key ca.key
  # A leaf of the CA before would no longer verify.
  rm -f server.pem client.pem
  openssl req -new -x509 -key ca.key -sha256 -days "$CA_DAYS" -subj "/CN=scoregate development CA" \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" -out ca.pem
  chmod 0644 ca.pem
}

# make_leaf FILE USAGE SAN: FILE.pem and FILE.key, signed by the CA.
make_leaf() {
  local file="$1" usage="$2" san="$3" request extensions
  if valid "$file" && [[ -s "$file.key" && "$(names_in "$file")" == "$san" ]]; then return; fi
  make_key "$file.key"
  extensions="$(printf '%s\n' "basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature" \
    "extendedKeyUsage=$usage" "subjectKeyIdentifier=hash" "authorityKeyIdentifier=keyid" "subjectAltName=$san")"
  request="$(openssl req -new -key "$file.key" -subj "/CN=scoregate $file")"
  # Written beside and renamed: a gateway that watches the file never reads half of it.
  openssl x509 -req -in <(printf '%s\n' "$request") -CA ca.pem -CAkey ca.key -sha256 -days "$LEAF_DAYS" \
    -set_serial "0x$(openssl rand -hex 16 | sed 's/^./4/')" -extfile <(printf '%s\n' "$extensions") \
    -out "$file.pem.new" 2>/dev/null
  chmod 0644 "$file.pem.new"
  mv "$file.pem.new" "$file.pem"
}

make_key() {
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
  chmod 0600 "$1"
}

# valid FILE: is FILE.pem there, and not about to end?
valid() {
  [[ -s "$1.pem" ]] && openssl x509 -in "$1.pem" -noout -checkend "$RENEW_SECONDS" >/dev/null 2>&1
}

# subject_alt_names NAME...: "DNS:a,IP:b", each once.
subject_alt_names() {
  local name list=()
  for name in "$@"; do
    if [[ "$name" =~ ^[0-9.]+$ ]]; then list+=("IP:$name"); else list+=("DNS:$name"); fi
  done
  printf '%s\n' "${list[@]}" | awk '!seen[$0]++' | paste -sd, -
}

# names_in FILE: the names of FILE.pem, spelled as subject_alt_names does.
names_in() {
  openssl x509 -in "$1.pem" -noout -ext subjectAltName | tail -n +2 | sed 's/IP Address:/IP:/g' | tr -d ' '
}

main "$@"

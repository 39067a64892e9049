#!/usr/bin/env python3
"""Builds country.bin, the country table embedded in the binary.

Reads the two text files of Debian's package `tor-geoipdb` and writes one compact table beside this script. The same input
gives the same bytes. Python 3.11, standard library only:

    apt-get install tor-geoipdb && python3 crates/geo/data/build.py

All numbers are big-endian. Addresses of both families are 128-bit keys; an IPv4 address fills the upper 32 bits.

    header     magic "OUTRGEO1", u64 date of the data (seconds since 1970), u32 countries, u32 IPv4 blocks, u32 IPv4 bytes,
               u32 IPv6 blocks, u32 IPv6 bytes, u32 bytes of the name of the source
    source     name and version of the source, UTF-8
    countries  two letters each
    then per family, IPv4 first:
    blocks     u128 first key, u32 where the block's ranges begin among the bytes
    bytes      ranges: a range's country (0 none, n the n-th of the list), and in all but a block's last, before the next
               range, the distance from its start to the next one's: one byte (zero bytes at the end << 4 | other bytes - 1)
               and the other bytes
"""

import argparse
import datetime
import email.utils
import ipaddress
import pathlib
import struct
import subprocess

# Ranges in a block: the most a lookup decodes after its binary search.
BLOCK = 64

# ISO 3166-1 alpha-2, and XK, which is user-assigned there but in common use for Kosovo.
COUNTRIES = frozenset(
    """AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA
    CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB
    GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG
    KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV
    MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB
    SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US
    UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW""".split()
)
# Written by some registries for what the standard calls something else.
RENAMED = {"UK": "GB"}


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--ipv4", default="/usr/share/tor/geoip")
    options.add_argument("--ipv6", default="/usr/share/tor/geoip6")
    options.add_argument("--package-version", help="default: what dpkg says is installed")
    options.add_argument("--output", default=pathlib.Path(__file__).parent / "country.bin")
    options = options.parse_args()

    version = options.package_version or installed_version()
    source = f"IPFire Location (CC BY-SA 4.0) by Debian tor-geoipdb {version}".encode()
    ipv4, date = read(options.ipv4, ipv4_key, 96)
    ipv6, date6 = read(options.ipv6, ipv6_key, 0)
    countries = sorted({country for _, country in ipv4 + ipv6 if country})
    index = {country: number for number, country in enumerate(countries, 1)} | {None: 0}
    ipv4_blocks, ipv4_bytes = encode(ipv4, index)
    ipv6_blocks, ipv6_bytes = encode(ipv6, index)

    table = b"OUTRGEO1" + struct.pack(
        ">QIIIIII",
        min(date, date6),
        len(countries),
        len(ipv4_blocks),
        len(ipv4_bytes),
        len(ipv6_blocks),
        len(ipv6_bytes),
        len(source),
    )
    table += source + "".join(countries).encode()
    table += b"".join(ipv4_blocks) + ipv4_bytes + b"".join(ipv6_blocks) + ipv6_bytes
    pathlib.Path(options.output).write_bytes(table)
    print(f"{len(countries)} countries, {len(ipv4)} IPv4 and {len(ipv6)} IPv6 ranges, {len(table)} bytes, {source.decode()}")


def installed_version():
    query = ["dpkg-query", "--show", "--showformat=${Version}", "tor-geoipdb"]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()


def ipv4_key(text):
    return int(text)


def ipv6_key(text):
    return int(ipaddress.IPv6Address(text))


def read(path, key, shift):
    """The (start, country) pairs of one file, each range reaching to the next, and the date of the data.

    Gaps become ranges of no country, neighbours of one country become one range.
    """
    ranges, date, end = [], None, -1
    with open(path, encoding="ascii") as lines:
        for number, line in enumerate(lines, 1):
            line = line.strip()
            if line.startswith("# Generated:"):
                date = int(email.utils.parsedate_to_datetime(line.removeprefix("# Generated:").strip()).timestamp())
            if not line or line.startswith("#"):
                continue
            first, last, country = line.split(",")
            first, last = key(first), key(last)
            if not end < first <= last:
                raise SystemExit(f"{path}:{number}: {line}: out of order")
            country = RENAMED.get(country, country)
            if first > end + 1:
                add(ranges, (end + 1) << shift, None)
            add(ranges, first << shift, country if country in COUNTRIES else None)
            end = last
    if date is None:
        raise SystemExit(f"{path}: no line '# Generated:'")
    if (end + 1) << shift < 1 << 128:
        add(ranges, (end + 1) << shift, None)
    print(f"{path}: data of {datetime.datetime.fromtimestamp(date, datetime.UTC):%Y-%m-%d}")
    return ranges, date


def add(ranges, start, country):
    if not ranges or ranges[-1][1] != country:
        ranges.append((start, country))


def encode(ranges, index):
    """Blocks and bytes as the format above has them."""
    blocks, data = [], bytearray()
    for first in range(0, len(ranges), BLOCK):
        block = ranges[first : first + BLOCK]
        blocks.append(block[0][0].to_bytes(16) + struct.pack(">I", len(data)))
        data.append(index[block[0][1]])
        for (start, _), (following, country) in zip(block, block[1:]):
            distance = (following - start).to_bytes(16).lstrip(b"\0")
            digits = distance.rstrip(b"\0")
            data.append((len(distance) - len(digits)) << 4 | len(digits) - 1)
            data += digits
            data.append(index[country])
    return blocks, bytes(data)


if __name__ == "__main__":
    main()

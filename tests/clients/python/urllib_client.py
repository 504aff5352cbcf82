"""urllib.request of the standard library; takes the proxy variables as they are."""

import sys
import urllib.error
import urllib.request

import show

try:
    with urllib.request.urlopen(sys.argv[1]) as response:
        show.page(response.read())
except urllib.error.HTTPError as exception:
    show.error(exception, exception.headers, exception.read())
except urllib.error.URLError as exception:
    show.error(exception)

"""Make the top-level package `handlers` importable.

Packages that use it import this module first. A wheel carries `handlers` as data, so that installing it puts no
package of that name into site-packages.
"""

import sys

from torchserve_models.paths import ROOT

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

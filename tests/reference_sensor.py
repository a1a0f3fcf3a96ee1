"""Sensor noise and the emulated codec, pixel by pixel in float64, from the same random numbers."""

import math

import numpy as np
from scipy.fft import dctn, idctn
from scipy.special import ndtri

from yolo_dyn.robustness.corruptions.draws import uniform16

TO_RGB = [[1.6215, -0.5658, -0.0558], [-0.1820, 1.4761, -0.2941], [0.0228, -0.4260, 1.4031]]
GAINS = (2.15, 1.0, 1.70)
BAYER = ((0, 1), (1, 2))  # RGGB: colour at an even or odd row and column


def normals(bits, count):
    """One after the other, as a call for an array of that many gives them."""
    return [float(ndtri((int(u) + 0.5) / 65536)) for u in uniform16(bits, (count,))]


def light(level, tone=False):
    v = level / 255
    if tone:
        v = 0.5 - math.sin(math.asin(1 - 2 * v) / 3)
    return v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4


def level(y, tone=False):
    y = min(max(y, 0.0), 1.0)
    v = 12.92 * y if y <= 0.0031308 else 1.055 * y ** (1 / 2.4) - 0.055
    if tone:
        v = 3 * v**2 - 2 * v**3
    return round(255 * v)


def counted(raw, noise, row, a, b, share, converter):
    noisy = raw + math.sqrt(a * raw + b) * noise + share * math.sqrt(b) * row
    steps = 2**converter - 1
    return min(round(noisy * steps) / steps, 1) - raw


def mirrored(i, length):
    if length == 1:
        return 0
    i = abs(i)
    return 2 * (length - 1) - i if i >= length else i


def demosaiced(mosaic, height, width, colour, row, column):
    """Mean over the sites of a colour in a window of 3x3, as bilinear weights have it."""
    total = 0.0
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            y, x = mirrored(row + down, height), mirrored(column + right, width)
            if BAYER[y % 2][x % 2] != colour:
                continue
            if colour == 1:
                weight = 1.0 if down == right == 0 else 0.25 if 0 in (down, right) else 0.0
            else:
                weight = (1 - abs(down) / 2) * (1 - abs(right) / 2)
            total += weight * mosaic[y][x]
    return total


def sensor_noise(image, a, b, row, exposure, bits, converter=12, tone=False):
    """RGB image through the mosaic of colour filters."""
    height, width = image.shape[:2]
    to_camera = np.linalg.inv(np.array(TO_RGB))
    noise = np.reshape(normals(bits, height * width), (height, width))
    offsets = normals(bits, height)
    mosaic = [[0.0] * width for _ in range(height)]
    for y in range(height):
        for x in range(width):
            c = BAYER[y % 2][x % 2]
            camera = sum(to_camera[c][k] * light(int(image[y, x, k]), tone) for k in range(3))
            raw = exposure * camera / GAINS[c]
            mosaic[y][x] = counted(raw, noise[y, x], offsets[y], a, b, row, converter)
    out = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            camera = [demosaiced(mosaic, height, width, c, y, x) * GAINS[c] / exposure for c in range(3)]
            for k in range(3):
                added = sum(TO_RGB[k][c] * camera[c] for c in range(3))
                out[y, x, k] = level(light(int(image[y, x, k]), tone) + added, tone)
    return out


def simple_noise(image, a, b, row, exposure, bits, converter=12):
    """Each value of an image of any number of channels by itself."""
    height, width, channels = image.shape
    noise = np.reshape(normals(bits, image.size), image.shape)
    offsets = normals(bits, height)
    out = np.zeros_like(image)
    for y, x, c in np.ndindex(height, width, channels):
        clean = light(int(image[y, x, c]))
        added = counted(exposure * clean, noise[y, x, c], offsets[y], a, b, row, converter) / exposure
        out[y, x, c] = level(clean + added)
    return out


def quantised(plane, step):
    """Blocks of 8x8 in whole steps of their orthonormal DCT, those below two thirds of a step 0."""
    out = np.zeros(plane.shape)
    for top in range(0, plane.shape[0], 8):
        for left in range(0, plane.shape[1], 8):
            block = dctn(plane[top : top + 8, left : left + 8].astype(float), norm="ortho")
            for place in np.ndindex(8, 8):
                share = abs(block[place]) / step
                whole = round(share) if place == (0, 0) else math.floor(share + 1 / 3)
                block[place] = math.copysign(whole * step, block[place])
            out[top : top + 8, left : left + 8] = idctn(block, norm="ortho")
    return out


def deblocked(plane, qp):
    """Edges between rows of blocks, then between columns."""
    out = plane.astype(float).copy()
    alpha, beta, most = 0.8 * (2 ** (qp / 6) - 1), 0.5 * qp - 7, 2 ** ((qp - 4) / 6) / 8
    for view in (out, out.T):
        for edge in range(8, view.shape[0], 8):
            for x in range(view.shape[1]):
                p1, p0, q0, q1 = (view[edge + k, x] for k in (-2, -1, 0, 1))
                if abs(p0 - q0) < alpha and abs(p1 - p0) < beta and abs(q1 - q0) < beta:
                    move = min(max((4 * (q0 - p0) + p1 - q1) / 8, -most), most)
                    view[edge - 1, x] += move
                    view[edge, x] -= move
    return out

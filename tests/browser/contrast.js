// What text on the page stands out less than `least`, and the luminance of the page behind it all.
(least) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const pixel = canvas.getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const rgba = (colour) => { // whatever notation it is in: by painting with it
    if (!known.has(colour)) {
      pixel.clearRect(0, 0, 1, 1);
      pixel.fillStyle = colour;
      pixel.fillRect(0, 0, 1, 1);
      known.set(colour, [...pixel.getImageData(0, 0, 1, 1).data]);
    }
    return known.get(colour);
  };
  const linear = (byte) => (byte / 255 <= 0.04045 ? byte / 255 / 12.92 : ((byte / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (e) => {
    const colour = rgba(getComputedStyle(e).backgroundColor);
    return colour[3] === 255 ? colour : behind(e.parentElement);
  };
  const weak = new Set();
  for (const e of document.body.querySelectorAll("*")) {
    const hasText = [...e.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!hasText || !e.checkVisibility() || ["SCRIPT", "OPTION", "title"].includes(e.tagName)) continue;
    const style = getComputedStyle(e);
    const text = luminance(rgba(e instanceof SVGElement ? style.fill : style.color));
    const [light, dark] = [text, luminance(behind(e))].sort((a, b) => b - a);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < least) weak.add(`${e.tagName} ${e.getAttribute("class")}: ${contrast.toFixed(2)}`);
  }
  return [[...weak], luminance(behind(document.body))];
}

// Films of a seed: loaded when they are opened, and played together.
for (const details of document.querySelectorAll("details:has(video)")) {
  const videos = [...details.querySelectorAll("video")];
  const others = (one) => videos.filter((video) => video !== one);
  details.addEventListener("toggle", () => {
    for (const video of videos) {
      if (details.open) video.preload = "auto";
      else video.pause();
    }
  });
  for (const one of videos) {
    one.addEventListener("play", () => others(one).forEach((video) => video.play()));
    one.addEventListener("pause", () => {
      if (!one.ended) others(one).forEach((video) => video.pause());
    });
  }
}
// A link to a seed opens its films.
const open = () => {
  const row = document.querySelector("tr:target + tr:has(video)");
  if (row) row.querySelector("details").open = true;
};
addEventListener("hashchange", open);
open();

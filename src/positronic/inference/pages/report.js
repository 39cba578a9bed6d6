// Couples each episode's video with its charts: the cursor follows the film, a click seeks it.
for (const episode of document.querySelectorAll(".episode")) {
  const video = episode.querySelector("video");
  const charts = [...episode.querySelectorAll(".chart")];
  if (!video) continue;
  const draw = () => {
    for (const chart of charts) {
      const { left, width, duration } = chart.dataset;
      const share = Math.min(1, video.currentTime / duration);
      const x = +left + width * share;
      const cursor = chart.querySelector(".cursor");
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
    }
  };
  const follow = () => {
    draw();
    if (!video.paused && !video.ended) requestAnimationFrame(follow);
  };
  video.addEventListener("play", () => { episode.classList.add("live"); follow(); });
  video.addEventListener("seeked", () => { episode.classList.add("live"); draw(); });
  for (const chart of charts) {
    const seek = (event) => {
      const box = chart.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
      const share = (x - chart.dataset.left) / chart.dataset.width;
      const end = Math.min(chart.dataset.duration, video.duration || Infinity);
      video.currentTime = Math.max(0, Math.min(end, share * chart.dataset.duration));
    };
    chart.addEventListener("pointerdown", (event) => { chart.setPointerCapture(event.pointerId); seek(event); });
    chart.addEventListener("pointermove", (event) => { if (event.buttons) seek(event); });
  }
}

// Copies a command; where the browser forbids it, the text is at least selected.
for (const button of document.querySelectorAll(".copy")) {
  const code = button.parentElement.querySelector("code");
  const say = (words) => {
    button.textContent = words;
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  };
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      say("Copied");
    } catch {
      getSelection().selectAllChildren(code);
      say("Selected");
    }
  });
}

using System.Net;
using System.Runtime.InteropServices;
using System.Text;

// The runtime image has no ASP.NET Core; HttpListener is part of .NET itself.
using var listener = new HttpListener();
listener.Prefixes.Add("http://+:8080/");
listener.Start();
Console.WriteLine("Listening on port 8080");

while (true)
{
    var context = await listener.GetContextAsync();
    // The runtime that really runs, such as ".NET 8.0.11". The test compares its beginning with what the image promises.
    var answer = Encoding.UTF8.GetBytes(RuntimeInformation.FrameworkDescription);
    context.Response.ContentType = "text/plain; charset=utf-8";
    context.Response.ContentLength64 = answer.Length;
    await context.Response.OutputStream.WriteAsync(answer);
    context.Response.Close();
}
